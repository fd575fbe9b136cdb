// What a run gave, in figures.

import { timings } from "./api.js";

const STAGES = {
  analysis: "analysis network",
  conditioning: "conditioning network",
  denoise: "denoising network",
  entropy: "entropy coding",
  image: "image file",
  parse: "checking the file",
  queue: "waiting",
};
const whole = new Intl.NumberFormat("en");

/** A number of bytes in words, at most four digits. */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(bytes < 1e5 ? 1 : 0)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

/** A time in words. */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 1e4 ? 2 : 1)} s`;
}

function decibels(value) {
  if (value === undefined) return "…";
  if (value === null) return "–";
  return value === Infinity ? "equal" : `${value.toFixed(2)} dB`;
}

function similarity(value) {
  if (value === undefined) return "…";
  return value === null ? "–" : value.toFixed(4);
}

/** How many of the upload's bytes are gone, in percent. */
export function saved(bytes, upload) {
  const share = 100 * (1 - bytes / upload);
  return `${share > 99 ? share.toFixed(2) : share.toFixed(1)} %`;
}

/** Fills the parts of the page below the pictures. */
export class Results {
  #links = [];

  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
  }

  /** Forget the last run. */
  clear() {
    this.section.hidden = true;
    this.stale = false;
    for (const link of this.#links) URL.revokeObjectURL(link);
    this.#links = [];
  }

  /**
   * @param {{name: string, bytes: number, psnr?: number | null, msssim?: number | null, upload?: boolean}[]} rows
   *   a figure that is undefined is still being worked out; null where there is none
   * @param {number} pixels of the picture
   * @param {boolean} detailed show the magnified parts as well
   */
  showFigures(rows, pixels, detailed) {
    this.#part("#details").hidden = !detailed;
    this.#part("#share").hidden = !detailed;
    const upload = rows.find((row) => row.upload)?.bytes;
    this.#part("#figures tbody").replaceChildren(
      ...rows.map((row) => {
        const line = document.createElement("tr");
        const head = Object.assign(document.createElement("th"), { scope: "row", textContent: row.name });
        const share = upload === undefined || row.upload ? "–" : saved(row.bytes, upload);
        const bpp = ((8 * row.bytes) / pixels).toFixed(3);
        const cells = [whole.format(row.bytes), share, bpp, decibels(row.psnr), similarity(row.msssim)];
        line.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
        return line;
      }),
    );
    this.section.hidden = false;
  }

  /** Whether the settings have changed since. */
  set stale(value) {
    this.section.classList.toggle("stale", value);
    this.#part("#stale").hidden = !value;
  }

  get shown() {
    return !this.section.hidden;
  }

  /** What it came to, in a line. */
  showHeadline(text) {
    this.#part("#results-title").textContent = text;
  }

  /** A remark below the figures. */
  showNote(text) {
    this.#part("#note").textContent = text;
  }

  /**
   * @param {Headers | null} encode headers of the answers
   * @param {Headers} decode
   * @param {number | null} firstPreview milliseconds from the request to the first preview on the screen
   */
  showTimes(encode, decode, firstPreview) {
    const pairs = [];
    for (const [title, headers] of [["Encode", encode], ["Decode", decode]]) {
      if (headers === null) continue;
      const stages = timings(headers);
      pairs.push([title, duration(stages.reduce((sum, [, ms]) => sum + ms, 0)), "sum"]);
      pairs.push(...stages.filter(([, ms]) => ms >= 0.5).map(([name, ms]) => [STAGES[name] ?? name, duration(ms), "part"]));
    }
    if (firstPreview !== null) pairs.push(["First preview after", duration(firstPreview), "sum"]);
    this.#pairs("#times", pairs);
  }

  /**
   * Where it was decoded.
   *
   * @param {number | null} here milliseconds on this device
   * @param {number | null} service seconds that the service would take
   * @param {boolean} uploaded whether the service made the file, and so has seen the picture
   */
  showPlace(here, service, uploaded) {
    const place = this.#part("#place");
    place.hidden = here === null;
    const beside = service === null ? "" : `; the service would take about ${duration(1000 * service)}`;
    const sent = uploaded ? "" : ", 0 bytes sent";
    if (here !== null) place.textContent = `Decoded on your device in ${duration(here)}${sent}${beside}.`;
  }

  /** What the decoder says it did. */
  showFacts(decode, quality) {
    const facts = [["Model", "model"], ["Steps", "steps"], ["Gamma", "gamma"], ["Seed", "seed"]];
    const pairs = facts.map(([title, name]) => [title, decode.get(`x-cdc-${name}`) ?? "–"]);
    if (quality !== null) pairs.unshift(["Quality", String(quality)]);
    this.#pairs("#facts", pairs);
  }

  /** Offer the files to keep. @param {Blob | null} file null where the .cdc file came from here */
  offer(name, file, png) {
    const stem = (name || "picture").replace(/\.[^.]*$/, "");
    this.#offer("#download-cdc", file, `${stem}.cdc`, ".cdc");
    this.#offer("#download-png", png, `${stem}.png`, "PNG");
  }

  /** Offer the card to keep. */
  offerCard(blob) {
    const link = this.#part("#download-card");
    link.href = URL.createObjectURL(blob);
    link.download = "cdc-comparison.png";
    this.#links.push(link.href);
  }

  #offer(selector, blob, name, kind) {
    const link = this.#part(selector);
    link.hidden = blob === null;
    if (blob === null) return;
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.textContent = `Download ${kind}, ${size(blob.size)}`;
    this.#links.push(link.href);
  }

  #part(selector) {
    return this.section.querySelector(selector);
  }

  #pairs(selector, pairs) {
    const items = pairs.flatMap(([title, text, kind]) => {
      const term = Object.assign(document.createElement("dt"), { textContent: title, className: kind ?? "" });
      return [term, Object.assign(document.createElement("dd"), { textContent: text, className: kind ?? "" })];
    });
    this.#part(selector).replaceChildren(...items);
  }
}
