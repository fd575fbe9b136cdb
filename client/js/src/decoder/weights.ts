/** The decoder's files (`cdc weights export --onnx`), which a service serves under /decoder/. */

import { hex } from "./container.js";
import { sha256 } from "./sha256.js";

/** What a decoder must know beside the files; see model/weights/decoder_export.py. */
export interface Manifest {
  readonly format: "cdc-decoder/1";
  readonly name: string;
  readonly version: number;
  readonly codec_id: string;
  readonly files: Readonly<Record<Part, { file: string; bytes: number; sha256: string }>>;
  readonly sides: readonly number[];
  readonly tile: number;
  readonly margin: number;
  readonly default_steps: number;
  readonly default_gamma: number;
  readonly schedule: { readonly length: number; readonly shift: number; readonly floor: number };
  readonly log_residual: readonly number[];
}

export type Part = "integers" | "synthesis" | "denoiser";

/** The decoder's files are not there, or not those that the manifest names. */
export class DecoderUnavailable extends Error {
  override readonly name = "DecoderUnavailable";
}

/** Where the files come from. */
export interface DecoderFiles {
  readonly manifest: Manifest;
  /** A file's bytes. Throws DecoderUnavailable. */
  read(part: Part): Promise<Uint8Array>;
}

/** Read a manifest. Throws DecoderUnavailable. */
export function readManifest(text: string): Manifest {
  let manifest: Partial<Manifest> | null = null;
  try {
    manifest = JSON.parse(text) as Partial<Manifest> | null;
  } catch {
    // told below
  }
  if (manifest?.format !== "cdc-decoder/1" || !manifest.files) {
    throw new DecoderUnavailable("decoder.json is not a manifest of cdc-decoder/1");
  }
  return manifest as Manifest;
}

/** Check that these bytes are the file that a manifest names. Throws DecoderUnavailable. */
export function checked(manifest: Manifest, part: Part, data: Uint8Array): Uint8Array {
  const entry = manifest.files[part];
  if (hex(sha256(data)) !== entry.sha256) throw new DecoderUnavailable(`${entry.file} is damaged`);
  return data;
}

/** Files at an address such as "https://host/decoder/"; the browser keeps them, for their names are their content's. */
export async function fetchFiles(base: string | URL, fetcher: typeof fetch = fetch): Promise<DecoderFiles> {
  const get = async (name: string): Promise<Response> => {
    let answer: Response;
    try {
      answer = await fetcher(new URL(name, base));
    } catch (error) {
      throw new DecoderUnavailable(`${name}: ${error instanceof Error ? error.message : "not reached"}`);
    }
    if (!answer.ok) throw new DecoderUnavailable(`${name}: answered ${answer.status}`);
    return answer;
  };
  const manifest = readManifest(await (await get("decoder.json")).text());
  return {
    manifest,
    async read(part) {
      const answer = await get(manifest.files[part].file);
      return checked(manifest, part, new Uint8Array(await answer.arrayBuffer()));
    },
  };
}
