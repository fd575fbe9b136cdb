/**
 * `<cdc-image src="photo.cdc" steps="4" gamma="0.8" service="https://host/" alt="...">`: shows a `.cdc` file, decoded in the
 * browser, step by step. Where that is not possible, an `<img>` in it asks the service for a PNG.
 *
 * `service` is the address under which /decoder/ and /decode lie; by default that of the page. Events: `load` (its
 * `detail` says where it was decoded and in how many milliseconds) and `error`.
 */

import { Client } from "./client.js";
import { type ColorSpace, DISPLAY_P3, toSrgb } from "./decoder/colour.js";
import type { DecodedImage } from "./decoder/decoder.js";
import { WorkerDecoder } from "./remote.js";

const decoders = new Map<string, Promise<WorkerDecoder>>();

/** The page's decoder for a service; one worker for all elements. */
function decoderOf(service: URL): Promise<WorkerDecoder> {
  let found = decoders.get(service.href);
  if (found === undefined) {
    const base = new URL("decoder/", service);
    found = WorkerDecoder.load(base, { device: "auto", runtimePath: base.href });
    decoders.set(service.href, found);
    found.catch(() => decoders.delete(service.href));
  }
  return found;
}

/**
 * Draw an image, its alpha plane included, on a canvas of its size: in Display P3 where image and browser have it.
 *
 * A canvas keeps the space of its first context; what is drawn there later is converted to it by the browser.
 */
export async function drawImage(image: DecodedImage, canvas: HTMLCanvasElement): Promise<void> {
  const { width, height, data, alpha } = image;
  if (alpha !== undefined) {
    const header = new DataView(alpha.buffer, alpha.byteOffset, alpha.byteLength); // of a PNG: sides at 16 and 20
    if (alpha.byteLength < 24 || header.getUint32(16) !== width || header.getUint32(20) !== height) {
      throw new Error("the alpha plane has another size than the image");
    }
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(alpha)], { type: "image/png" }), {
      premultiplyAlpha: "none",
      colorSpaceConversion: "none",
    });
    const context = new OffscreenCanvas(width, height).getContext("2d");
    if (context === null) throw new Error("no canvas");
    context.drawImage(bitmap, 0, 0);
    const plane = context.getImageData(0, 0, width, height).data;
    for (let i = 0; i < plane.length; i += 4) data[i + 3] = plane[i];
  }
  canvas.width = width;
  canvas.height = height;
  const colorSpace = hasDisplayP3() ? image.colorSpace : "srgb";
  const context = canvas.getContext("2d", { colorSpace });
  if (context === null) throw new Error("no canvas");
  const shown = colorSpace === image.colorSpace ? data : data.slice();
  if (shown !== data) toSrgb(shown, DISPLAY_P3);
  context.putImageData(new ImageData(shown, width, height, { colorSpace }), 0, 0);
}

/** Whether the browser has the space; one that has not ignores the member. */
function hasDisplayP3(): boolean {
  return new ImageData(1, 1, { colorSpace: "display-p3" }).colorSpace === "display-p3";
}

/** The element; `defineElement` gives it its name. */
export class CdcImage extends HTMLElement {
  static readonly observedAttributes = ["src", "steps", "gamma", "service"];
  private controller: AbortController | undefined;
  private canvas = document.createElement("canvas");
  private colorSpace: ColorSpace | undefined;
  private readonly fallback = document.createElement("img");

  constructor() {
    super();
    this.fallback.style.maxWidth = "100%";
    this.attachShadow({ mode: "open" });
  }

  connectedCallback(): void {
    this.start();
  }

  disconnectedCallback(): void {
    this.controller?.abort();
    this.releaseFallback();
  }

  attributeChangedCallback(): void {
    if (this.isConnected) this.start();
  }

  private start(): void {
    this.controller?.abort();
    const controller = (this.controller = new AbortController());
    this.show(controller.signal).then(
      (detail) => this.dispatchEvent(new CustomEvent("load", { detail })),
      (error: unknown) => {
        if (!controller.signal.aborted) this.dispatchEvent(new ErrorEvent("error", { error, message: String(error) }));
      },
    );
  }

  private get service(): URL {
    return new URL(this.getAttribute("service") ?? "./", document.baseURI);
  }

  private async show(signal: AbortSignal): Promise<{ where: "device" | "service"; milliseconds: number }> {
    const src = this.getAttribute("src");
    if (src === null) throw new Error("src is missing");
    const answer = await fetch(new URL(src, document.baseURI), { signal });
    if (!answer.ok) throw new Error(`${src}: answered ${answer.status}`);
    const data = new Uint8Array(await answer.arrayBuffer());
    const number = (name: string): number | undefined => {
      const value = this.getAttribute(name);
      return value === null ? undefined : Number(value);
    };
    const [steps, gamma] = [number("steps"), number("gamma")];
    const options = { ...(steps === undefined ? {} : { steps }), ...(gamma === undefined ? {} : { gamma }), signal };
    const start = performance.now();
    try {
      const decoder = await decoderOf(this.service);
      let drawn = Promise.resolve(); // one after the other: the last one stays
      const onProgress = (step: DecodedImage): void => {
        drawn = drawn.then(() => this.draw(step, signal)).catch(() => undefined);
      };
      const image = await decoder.decode(data, { ...options, onProgress });
      await drawn;
      await this.draw(image, signal);
      return { where: "device", milliseconds: performance.now() - start };
    } catch {
      signal.throwIfAborted();
    }
    const made = await new Client(this.service).decode(data, { ...options, format: "png" });
    this.releaseFallback();
    this.fallback.src = URL.createObjectURL(new Blob([made.data], { type: made.mediaType }));
    this.fallback.alt = this.getAttribute("alt") ?? "";
    this.shadowRoot?.replaceChildren(this.fallback);
    return { where: "service", milliseconds: performance.now() - start };
  }

  private async draw(image: DecodedImage, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    if (this.colorSpace !== image.colorSpace) {
      this.canvas = document.createElement("canvas");
      this.canvas.style.maxWidth = "100%";
      this.colorSpace = image.colorSpace;
    }
    await drawImage(image, this.canvas);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", this.getAttribute("alt") ?? "");
    this.shadowRoot?.replaceChildren(this.canvas);
  }

  private releaseFallback(): void {
    if (this.fallback.src.startsWith("blob:")) URL.revokeObjectURL(this.fallback.src);
  }
}

/** Define the element under this name. */
export function defineElement(name = "cdc-image"): void {
  if (customElements.get(name) === undefined) customElements.define(name, CdcImage);
}

export { WorkerDecoder };
