/** What the tests read: the decoder's files in CDC_DECODER, conformance files in CDC_CONFORMANCE, images in CDC_IMAGES. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type DecoderFiles, checked, readManifest } from "../src/decoder/index.js";

export interface Entry {
  readonly file: string;
  readonly symbols?: string;
  readonly image?: string | null;
  readonly error?: string;
}

function folder(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

export function read(...path: string[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(readFileSync(join(folder("CDC_CONFORMANCE"), ...path)));
}

export const entries = JSON.parse(new TextDecoder().decode(read("expected.json"))) as Entry[];

/** RGB bytes of an expected image. */
export function image(entry: Entry): Uint8Array {
  return Uint8Array.from(readFileSync(join(folder("CDC_IMAGES"), `${entry.file.replaceAll("/", "_")}.rgb`)));
}

const manifest = readManifest(readFileSync(join(folder("CDC_DECODER"), "decoder.json"), "utf8"));
export const files: DecoderFiles = {
  manifest,
  read: async (part) => {
    const data = Uint8Array.from(readFileSync(join(folder("CDC_DECODER"), manifest.files[part].file)));
    return checked(manifest, part, data);
  },
};
