// One run: a picture goes to the service, comes back step by step, and is compared with other codecs.

import { Countdown, say, showProgress } from "./messages.js";
import { blobOf, draw, drawFile, resize } from "./picture.js";
import { Problem } from "./problems.js";
import { saved, size } from "./results.js";
import { forgetRun, keepRun } from "./store.js";

const CODECS = { jpeg: "JPEG", webp: "WebP", avif: "AVIF" };

/**
 * @typedef {{file: File, decodeOnly: boolean, visible: boolean}} Picture
 *   `decodeOnly`: a .cdc file; `visible`: the browser can show the original
 */

/** Runs once. */
export class Run {
  /** Settles when the run has ended, however it did. */
  ended = Promise.resolve();
  cancelled = false;
  #controller = new AbortController();
  #countdown = new Countdown();
  #job = null;

  /**
   * @param {Picture} picture
   * @param {{service: import("./api.js").Service, comparison: import("./comparison.js").Comparison,
   *   results: import("./results.js").Results, measure: import("./measure.js").Measure,
   *   device: import("./device.js").Device}} page
   */
  constructor(picture, page) {
    this.picture = picture;
    Object.assign(this, page);
  }

  /**
   * @param {object | null} encodeQuery null for a .cdc file
   * @param {object} decodeQuery
   * @param {number | null} expected seconds, where they are known
   * @throws {Problem} the service refuses or cannot be reached
   */
  async run(encodeQuery, decodeQuery, expected) {
    for (const name of ["start", "decode", "preview"]) performance.clearMarks(`cdc:${name}`);
    mark("start");
    try {
      if (expected !== null) this.#countdown.start(expected);
      const encoded = encodeQuery === null ? null : await this.#encode(encodeQuery);
      const file = encoded?.blob ?? this.picture.file;
      const [width, height] = await this.#size(file, encoded);
      this.comparison.expect(width, height, !this.picture.visible);
      const decoded = await this.#decode(file, encoded, decodeQuery);
      await this.#finish(file, encoded, decoded);
    } finally {
      await this.#end();
    }
  }

  /** Go on with a run that a reload broke off, from its job. @param {object} kept see `keepRun` */
  async resume({ job, file, encoded }) {
    try {
      const headers = encoded && new Headers(encoded);
      const [width, height] = await this.#size(file, headers && { headers });
      this.comparison.expect(width, height, !this.picture.visible);
      this.#job = job;
      await this.#finish(file, headers && { headers }, await this.#follow(job));
    } finally {
      await this.#end();
    }
  }

  /** End it: a job by its address, a request by leaving it. */
  async cancel() {
    this.cancelled = true;
    this.#cancelJob();
    this.#controller.abort();
    this.measure.stop();
    await this.ended;
  }

  #cancelJob() {
    if (this.#job !== null) this.service.cancel(this.#job).catch(() => {});
    this.#job = null;
  }

  async #end() {
    this.#countdown.stop();
    await forgetRun();
  }

  async #encode(query) {
    showProgress("Encoding…");
    return this.service.encode(this.picture.file, query, this.#controller.signal);
  }

  async #size(file, encoded) {
    if (encoded !== null) return ["width", "height"].map((side) => Number(encoded.headers.get(`x-cdc-${side}`)));
    const { width, height } = await this.service.inspect(file, this.#controller.signal);
    return [width, height];
  }

  async #decode(file, encoded, query) {
    const { signal } = this.#controller;
    mark("decode");
    const own = await this.#decodeHere(file, query);
    if (own !== null) return own;
    showProgress("Waiting for the decoder…");
    if (query.steps === "auto") {
      showProgress("Decoding…");
      return this.service.decodeNow(file, query, signal);
    }
    const { id } = await this.service.submit(file, query); // to its end: a job that is not known cannot be cancelled
    this.#job = id;
    if (this.cancelled) this.#cancelJob();
    signal.throwIfAborted();
    const { file: original, decodeOnly } = this.picture;
    await keepRun({ job: id, original, file, encoded: encoded && [...encoded.headers], decodeOnly });
    return this.#follow(id);
  }

  /** Decode in the browser. @returns {Promise<{blob: Blob, headers: Headers, here: number} | null>} null: the service must */
  async #decodeHere(file, query) {
    if (!this.device.ready || query.steps === "auto") return null;
    showProgress("Decoding on your device…");
    const { cdc } = this.comparison.canvases;
    return this.device.decode(file, query, cdc, this.#controller.signal, (step, steps) => {
      this.comparison.showDecoded(`CDC, step ${step} of ${steps}`);
      showStep({ step, steps });
    });
  }

  async #follow(id) {
    const { signal } = this.#controller;
    for await (const event of this.service.events(id, signal)) {
      if (event.type === "preview") await this.#showPreview(event.data);
      else if (event.type === "progress") showStep(event.data);
      else if (event.type === "state") this.#showState(event.data);
    }
    this.#job = null;
    return this.service.result(id, signal);
  }

  async #showPreview({ step, steps, media_type: type, image }) {
    if (image === null) return; // too many bytes to keep
    const bitmap = await createImageBitmap(blobOf(image, type));
    draw(this.comparison.canvases.cdc, bitmap);
    bitmap.close();
    this.comparison.showDecoded(`CDC, step ${step} of ${steps}`);
    if (performance.getEntriesByName("cdc:preview").length === 0) {
      requestAnimationFrame(() => setTimeout(() => mark("preview"))); // a task after a frame's callbacks runs after its paint
    }
  }

  #showState(job) {
    showState(job);
    if (job.state !== "succeeded" && job.estimate_seconds) this.#countdown.start(job.estimate_seconds);
  }

  async #finish(file, encoded, decoded) {
    const { comparison, picture, results } = this;
    const { original, cdc } = comparison.canvases;
    this.#countdown.stop();
    showProgress("Comparing…", 1);
    await drawFile(decoded.blob, cdc);
    comparison.showDecoded(`CDC, ${size(file.size)}`);
    const comparable = picture.visible && original.width === cdc.width && original.height === cdc.height;
    const own = { name: "CDC", bytes: file.size, psnr: comparable ? undefined : null, msssim: comparable ? undefined : null };
    const upload = { name: "Original", bytes: picture.file.size, psnr: null, msssim: null, upload: true };
    const rows = picture.visible ? [upload, own] : [own];
    const show = () => results.showFigures(rows, cdc.width * cdc.height, comparable);
    results.clear();
    comparison.setBytes({ cdc: file.size });
    if (Number(decoded.headers.get("x-cdc-gamma")) > 0) await this.#showFaithful(file);
    const [now, before] = [file.size, picture.file.size].map(size);
    const smaller = picture.visible && file.size < picture.file.size;
    results.showHeadline(smaller ? `${now} instead of ${before}: ${saved(file.size, picture.file.size)} saved` : "Result");
    results.showTimes(encoded?.headers ?? null, decoded.headers, elapsed("decode", "preview"));
    results.showPlace(decoded.here ?? null, await this.#timeOfService(decoded), encoded !== null);
    results.showFacts(decoded.headers, encoded?.headers.get("x-cdc-quality") ?? null);
    results.offer(picture.file.name, picture.decodeOnly ? null : file, decoded.blob);
    results.showNote(picture.visible || picture.decodeOnly ? "" : "The browser cannot show the original: there is nothing to compare with.");
    show();
    if (comparable) {
      this.measure.setReference(original);
      const measured = this.measure.of(cdc).then((figures) => show(Object.assign(own, figures)));
      await Promise.all([measured, ...(await this.#others(file.size, rows, show))]);
      this.#controller.signal.throwIfAborted();
    }
    comparison.details.redraw();
    say(rows.map((r) => `${r.name}: ${size(r.bytes)}${r.psnr ? `, ${r.psnr.toFixed(1)} decibels` : ""}`).join(". "));
  }

  /** The same file at gamma 0, to be seen beside: one step of no denoising. */
  async #showFaithful(file) {
    const { faithful, cdc } = this.comparison.canvases;
    resize(faithful, cdc.width, cdc.height);
    const { signal } = this.#controller;
    const query = { steps: "1", gamma: "0" };
    const own = this.device.ready ? await this.device.decode(file, query, faithful, signal, () => {}) : null;
    try {
      await drawFile((own ?? (await this.service.decodeNow(file, query, signal))).blob, faithful);
      this.comparison.showBoth(file.size);
    } catch {
      signal.throwIfAborted(); // else the decode that was asked for is there, and enough
    }
  }

  /** Seconds that the service would have taken for a decode that was done here, null where they are not known. */
  async #timeOfService({ here, headers }) {
    if (here === undefined) return null;
    const { width, height } = this.comparison.canvases.cdc;
    const [steps, gamma] = ["steps", "gamma"].map((name) => headers.get(`x-cdc-${name}`));
    const expected = await this.service.estimate(width, height, { steps, gamma, effort: 1 }).catch(() => null);
    return expected?.decode ?? null;
  }

  /** The other codecs' files of as many bytes, on their canvases and as rows. @returns {Promise<Promise<void>[]>} measurements */
  async #others(bytes, rows, show) {
    const notes = [];
    const measuring = [];
    for (const [format, name] of Object.entries(CODECS)) {
      showProgress(`Comparing with ${name}…`, 1);
      const made = await this.service.compare(this.picture.file, format, bytes, this.#controller.signal).catch((error) => {
        if (error.name === "AbortError") throw error;
        notes.push(`${name}: ${error.title ?? error.message}.`);
        return null;
      });
      if (made === null) continue;
      const canvas = this.comparison.canvases[format];
      const shown = await drawFile(made.blob, canvas);
      const figures = shown ? {} : { psnr: null, msssim: null };
      const row = { name, bytes: made.blob.size, ...figures };
      rows.push(row);
      if (shown) {
        this.comparison.setBytes({ [format]: made.blob.size });
        measuring.push(this.measure.of(canvas).then((found) => show(Object.assign(row, found))));
      }
      const times = (made.blob.size / bytes).toFixed(1);
      if (made.headers.get("x-fits") === "false") notes.push(`No ${name} is that small: its smallest takes ${times} times the bytes.`);
      show();
      this.comparison.details.redraw();
    }
    this.results.showNote(["JPEG, WebP and AVIF: the best of at most as many bytes, made by the service.", ...notes].join(" "));
    return measuring;
  }
}

function showState(job) {
  if (job.state === "queued") {
    showProgress(job.position ? `Waiting, ${job.position} before this one…` : "Waiting for the decoder…");
  } else if (job.state === "running") {
    showProgress("Decoding…");
  } else if (job.state === "failed") {
    throw Problem.of(job.error);
  } else if (job.state === "cancelled") {
    throw new Problem("The job was cancelled", { advice: "Press the button to start again." });
  }
}

function showStep({ step, steps }) {
  showProgress(`Decoding, step ${step} of ${steps}`, step / steps);
}

function mark(name) {
  performance.mark(`cdc:${name}`);
}

function elapsed(from, to) {
  const [start, end] = [from, to].map((name) => performance.getEntriesByName(`cdc:${name}`)[0]);
  return start && end ? end.startTime - start.startTime : null;
}
