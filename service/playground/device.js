// Decoding in the browser, where the service gives the scripts for it (`make browser`).

/** Loads the decoder beside the page's other work; until it is there the service decodes. */
export class Device {
  #decoder = null;
  #draw = null;
  #model = "";

  /** Whether it can decode now. */
  get ready() {
    return this.#decoder !== null;
  }

  /** Fetch scripts and networks, some 14 MB once; nothing where data are to be saved. */
  async load() {
    if (navigator.connection?.saveData === true) return;
    const base = new URL("decoder/", document.baseURI);
    try {
      this.#model = (await (await fetch(new URL("decoder.json", base))).json()).name;
      const { WorkerDecoder, drawImage } = await import(new URL("cdc-image.js", base).href);
      this.#draw = drawImage;
      this.#decoder = await WorkerDecoder.load(base, { runtimePath: base.href }, new URL("worker.js", base));
      document.documentElement.dataset.device = "ready";
    } catch (error) {
      console.info(`decoding is left to the service: ${error.message}`);
    }
  }

  /**
   * Decode a .cdc file and draw it.
   *
   * @param {Blob} file
   * @param {{steps: string, gamma: string}} query
   * @param {HTMLCanvasElement} canvas
   * @param {AbortSignal} signal
   * @param {(step: number, steps: number) => void} onStep
   * @returns {Promise<{blob: Blob, headers: Headers, here: number} | null>} a PNG, what the service would say of it, and
   *   milliseconds; null where this decoder cannot, or will not: the service says why
   */
  async decode(file, query, canvas, signal, onStep) {
    const start = performance.now();
    const [steps, gamma] = [Number(query.steps), Number(query.gamma)];
    const show = (image, step, of) => void this.#draw(image, canvas).then(() => onStep(step, of));
    try {
      const data = new Uint8Array(await file.arrayBuffer());
      const image = await this.#decoder.decode(data, { steps, gamma, signal, onProgress: show });
      await this.#draw(image, canvas);
      const here = performance.now() - start;
      const own = document.createElement("canvas"); // the page's canvas is sRGB, the PNG is of the image's space
      if (image.colorSpace !== "srgb") await this.#draw(image, own);
      const drawn = image.colorSpace === "srgb" ? canvas : own;
      const blob = await new Promise((resolve) => drawn.toBlob(resolve, "image/png"));
      const { entropy, networks } = image.times;
      const timing = `entropy;dur=${entropy.toFixed(1)}, networks;dur=${networks.toFixed(1)}`;
      const headers = { "x-cdc-steps": query.steps, "x-cdc-gamma": query.gamma, "server-timing": timing };
      return { blob, headers: new Headers({ ...headers, "x-cdc-model": this.#model }), here };
    } catch {
      signal.throwIfAborted();
      return null;
    }
  }
}
