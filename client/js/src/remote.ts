/** A decoder in a worker, seen from the page. */

import type { DecodeOptions, DecodedImage } from "./decoder/decoder.js";
import { type FileErrorCode, UnreadableFile } from "./decoder/container.js";
import type { RuntimeOptions } from "./decoder/runtime.js";
import type { Reply, Request } from "./worker.js";

interface Waiting {
  readonly resolve: (image: DecodedImage | null) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: DecodeOptions["onProgress"];
}

type Asked = Request extends infer R ? (R extends { id: number } ? Omit<R, "id"> : never) : never;

/** Decodes in a worker, one file after the other. */
export class WorkerDecoder {
  private readonly waiting = new Map<number, Waiting>();
  private next = 0;

  private constructor(private readonly worker: Worker) {
    worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => this.take(data));
    worker.addEventListener("error", (event) => this.fail(new Error(event.message || "the decoder's worker failed")));
  }

  /**
   * Start a worker and load the decoder there.
   *
   * @param base where decoder.json lies, with a slash at the end
   * @param script the worker's; by default the one beside this module
   */
  static async load(base: URL, runtime: RuntimeOptions = {}, script?: URL): Promise<WorkerDecoder> {
    const worker = new Worker(script ?? new URL("./worker.js", import.meta.url), { type: "module" });
    const made = new WorkerDecoder(worker);
    try {
      await made.ask({ load: { base: base.href, runtime } }, undefined);
    } catch (error) {
      worker.terminate();
      throw error;
    }
    return made;
  }

  /** See `Decoder.decode`; a decode that is aborted goes on unseen to the end of its tile. */
  async decode(data: Uint8Array, options: DecodeOptions = {}): Promise<DecodedImage> {
    const { signal, onProgress, ...others } = options;
    signal?.throwIfAborted();
    const aborted = new Promise<never>((_, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
    const image = await Promise.race([this.ask({ data, options: others }, onProgress), aborted]);
    return image as DecodedImage;
  }

  /** End the worker. */
  close(): void {
    this.worker.terminate();
    this.fail(new Error("the decoder was closed"));
  }

  private ask(request: Asked, onProgress: DecodeOptions["onProgress"]): Promise<DecodedImage | null> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onProgress });
      this.worker.postMessage({ id, ...request });
    });
  }

  private take(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    if (waiting === undefined) return;
    if ("image" in reply && reply.step !== undefined && reply.steps !== undefined && reply.image !== null) {
      waiting.onProgress?.(reply.image, reply.step, reply.steps);
      return;
    }
    this.waiting.delete(reply.id);
    if ("image" in reply) waiting.resolve(reply.image);
    else waiting.reject(reply.code ? new UnreadableFile(reply.code as FileErrorCode, reply.error) : new Error(reply.error));
  }

  private fail(error: Error): void {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
