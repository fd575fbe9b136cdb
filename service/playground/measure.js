// Distances between canvases, worked out beside the page so that it stays alive.

/** Compares canvases with a reference of the same size. */
export class Measure {
  #worker = null;
  #waiting = new Map();
  #next = 0;

  /** Work nothing out any more; who still waits gets no figures. */
  stop() {
    this.#worker?.terminate();
    for (const resolve of this.#waiting.values()) resolve({ psnr: null, msssim: null });
    this.#waiting.clear();
  }

  /** Take another reference. @param {HTMLCanvasElement} canvas */
  setReference(canvas) {
    this.stop();
    this.#worker = new Worker(new URL("./metrics.js", import.meta.url), { type: "module" });
    this.#worker.addEventListener("message", ({ data: { id, ...figures } }) => {
      this.#waiting.get(id)?.(figures);
      this.#waiting.delete(id);
    });
    this.#post(canvas, { isReference: true });
  }

  /** @param {HTMLCanvasElement} canvas @returns {Promise<{psnr: number, msssim: number | null}>} */
  of(canvas) {
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#post(canvas, { id });
    });
  }

  #post(canvas, message) {
    const { width, height } = canvas;
    // A copy in main memory is read: the picture itself may stay with the graphics card.
    const copy = Object.assign(document.createElement("canvas"), { width, height });
    const context = copy.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data.buffer;
    this.#worker.postMessage({ ...message, width, height, pixels }, [pixels]);
  }
}
