// One run: a picture goes to the service, comes back step by step, and is compared with its JPEG.

import { say, showEstimate, showProgress } from "./messages.js";
import { blobOf, draw, drawFile, jpegWithin, psnr } from "./picture.js";
import { Problem } from "./problems.js";
import { duration, size } from "./results.js";

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
  #job = null;

  /**
   * @param {Picture} picture
   * @param {{service: import("./api.js").Service, comparison: import("./comparison.js").Comparison,
   *   results: import("./results.js").Results}} page
   */
  constructor(picture, page) {
    this.picture = picture;
    Object.assign(this, page);
  }

  /**
   * @param {object | null} encodeQuery null for a .cdc file
   * @param {object} decodeQuery
   * @throws {Problem} the service refuses or cannot be reached
   */
  async run(encodeQuery, decodeQuery) {
    for (const name of ["start", "decode", "preview"]) performance.clearMarks(`cdc:${name}`);
    mark("start");
    const encoded = encodeQuery === null ? null : await this.#encode(encodeQuery);
    const file = encoded?.blob ?? this.picture.file;
    const [width, height] = await this.#size(file, encoded);
    this.comparison.expect(width, height, !this.picture.visible);
    const decoded = await this.#decode(file, decodeQuery);
    await this.#finish(file, encoded, decoded);
  }

  /** End it: a job by its address, a request by leaving it. */
  async cancel() {
    this.cancelled = true;
    this.#cancelJob();
    this.#controller.abort();
    await this.ended;
  }

  /** The page is being left. */
  abandon() {
    this.#cancelJob();
  }

  #cancelJob() {
    if (this.#job !== null) this.service.cancel(this.#job).catch(() => {});
    this.#job = null;
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

  async #decode(file, query) {
    const { signal } = this.#controller;
    mark("decode");
    showProgress("Waiting for the decoder…");
    if (query.steps === "auto") {
      showProgress("Decoding…");
      return this.service.decodeNow(file, query, signal);
    }
    const { id } = await this.service.submit(file, query); // to its end: a job that is not known cannot be cancelled
    this.#job = id;
    if (this.cancelled) this.#cancelJob();
    signal.throwIfAborted();
    for await (const event of this.service.events(id, signal)) {
      if (event.type === "preview") await this.#showPreview(event.data);
      else if (event.type === "progress") showStep(event.data);
      else if (event.type === "state") showState(event.data);
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

  async #finish(file, encoded, decoded) {
    const { comparison, picture, results } = this;
    const { original, cdc } = comparison.canvases;
    showProgress("Comparing…", 1);
    await drawFile(decoded.blob, cdc);
    comparison.showDecoded(`CDC, ${size(file.size)}`);
    const comparable = picture.visible && original.width === cdc.width && original.height === cdc.height;
    const own = { name: "CDC", bytes: file.size, psnr: comparable ? await psnr(original, cdc) : null };
    const rows = picture.visible ? [{ name: "Original", bytes: picture.file.size, psnr: null }, own] : [own];
    comparison.setBytes({ cdc: file.size });
    results.showTimes(encoded?.headers ?? null, decoded.headers, elapsed("decode", "preview"));
    results.showFacts(decoded.headers, encoded?.headers.get("x-cdc-quality") ?? null);
    results.offer(picture.file.name, picture.decodeOnly ? null : file, decoded.blob);
    results.showNote(picture.visible || picture.decodeOnly ? "" : "The browser cannot show the original: there is nothing to compare with.");
    results.showFigures(rows, cdc.width * cdc.height, comparable);
    if (comparable) {
      rows.push(await this.#jpeg(file.size));
      results.showFigures(rows, cdc.width * cdc.height, true);
    }
    comparison.details.redraw();
    say(rows.map((r) => `${r.name}: ${size(r.bytes)}${r.psnr === null ? "" : `, ${r.psnr.toFixed(1)} decibels`}`).join(". "));
  }

  /** The JPEG of as many bytes, on its canvas and as a row of the figures. */
  async #jpeg(bytes) {
    const { original, jpeg } = this.comparison.canvases;
    const made = await jpegWithin(original, bytes);
    await drawFile(made.blob, jpeg);
    this.comparison.setBytes({ jpeg: made.blob.size });
    const ratio = (made.blob.size / bytes).toFixed(1);
    this.results.showNote(
      made.fits
        ? `JPEG: the best this browser makes within ${size(bytes)}, quality ${made.quality} of 100.`
        : `No JPEG of this browser is that small: quality 0, shown here, takes ${ratio} times the bytes.`,
    );
    return { name: "JPEG", bytes: made.blob.size, psnr: await psnr(original, jpeg) };
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
  if (job.state !== "succeeded" && job.estimate_seconds) showEstimate(`about ${duration(job.estimate_seconds * 1000)}`);
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
