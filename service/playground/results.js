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
  if (value === null) return "–";
  return value === Infinity ? "equal" : `${value.toFixed(2)} dB`;
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
    for (const link of this.#links) URL.revokeObjectURL(link);
    this.#links = [];
  }

  /**
   * @param {{name: string, bytes: number, psnr: number | null, note?: string}[]} rows
   * @param {number} pixels of the picture
   * @param {boolean} detailed show the magnified parts as well
   */
  showFigures(rows, pixels, detailed) {
    this.#part("#details").hidden = !detailed;
    const body = this.#part("#figures tbody");
    body.replaceChildren(
      ...rows.map((row) => {
        const line = document.createElement("tr");
        const head = Object.assign(document.createElement("th"), { scope: "row", textContent: row.name });
        const cells = [whole.format(row.bytes), ((8 * row.bytes) / pixels).toFixed(3), decibels(row.psnr)];
        line.append(head, ...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
        return line;
      }),
    );
    this.section.hidden = false;
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
