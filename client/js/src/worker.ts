/** The decoder in a worker: the page stays responsive while integers and networks run. */

import { type DecodeOptions, type DecodedImage, Decoder, type RuntimeOptions, UnreadableFile, fetchFiles } from "./decoder/index.js";

/** What a page asks: load with `load`, then decode. */
export type Request =
  | { readonly id: number; readonly load: { readonly base: string; readonly runtime: RuntimeOptions } }
  | { readonly id: number; readonly data: Uint8Array; readonly options: Omit<DecodeOptions, "signal" | "onProgress"> };

/** What comes back: the image, or how it looks so far, or why there is none. */
export type Reply =
  | { readonly id: number; readonly image: DecodedImage | null; readonly step?: number; readonly steps?: number }
  | { readonly id: number; readonly error: string; readonly code: string | undefined };

let decoder: Promise<Decoder> | undefined;

async function answer(request: Request): Promise<DecodedImage | null> {
  if ("load" in request) {
    decoder = fetchFiles(request.load.base).then((files) => Decoder.load(files, request.load.runtime));
    await (await decoder).prepare();
    return null;
  }
  if (decoder === undefined) throw new Error("the decoder has not been loaded");
  const onProgress = (image: DecodedImage, step: number, steps: number): void => {
    postMessage({ id: request.id, image, step, steps } satisfies Reply);
  };
  return (await decoder).decode(request.data, { ...request.options, onProgress });
}

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  answer(data).then(
    (image) => postMessage({ id: data.id, image } satisfies Reply),
    (error: unknown) => {
      const code = error instanceof UnreadableFile ? error.code : undefined;
      postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error), code } satisfies Reply);
    },
  );
});
