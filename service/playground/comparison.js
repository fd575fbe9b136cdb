// The pictures on the stage: which two, their labels, the magnified parts.

import { Details } from "./details.js";
import { drawDifference, resize } from "./picture.js";
import { size } from "./results.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const NAMES = { original: "Original", faithful: "CDC, faithful", cdc: "CDC", jpeg: "JPEG", webp: "WebP", avif: "AVIF", difference: "Difference × 8" };
const CODECS = ["jpeg", "webp", "avif"];

/** Holds the canvases, named original, cdc, difference, and after the other codecs. */
export class Comparison {
  canvases = Object.fromEntries(Object.keys(NAMES).map((name) => [name, $(`canvas-${name}`)]));
  #bytes = {};
  #point = [0, 0];

  constructor() {
    const parts = ["original", "cdc", ...CODECS].map((name) => [name, $(`detail-${name}`)]);
    this.details = new Details(this.canvases, Object.fromEntries(parts));
    this.viewer = new Viewer(
      { stage: $("stage"), world: $("world"), divider: $("divider"), canvases: this.canvases },
      {
        onZoom: (scale) => ($("zoom").value = `${Math.round(scale * 100)} %`),
        onFocus: (x, y) => {
          this.#point = [x, y];
          this.details.lookAt(x, y);
        },
      },
    );
    for (const id of ["left", "right"]) $(id).addEventListener("change", () => this.#choose(id));
    $("zoom-in").addEventListener("click", () => this.viewer.zoomIn());
    $("zoom-out").addEventListener("click", () => this.viewer.zoomOut());
    $("zoom-fit").addEventListener("click", () => this.viewer.fit());
    $("zoom-one").addEventListener("click", () => this.viewer.zoomTo(1));
  }

  /** Show the original alone. @param {number} bytes of its file */
  showOriginal(bytes) {
    const { width, height } = this.canvases.original;
    this.#bytes = { original: bytes };
    $("compare").hidden = false;
    this.viewer.reset(width, height);
    this.#pair("original", "original");
    this.#allow();
    $("chip-left").textContent = `Original, ${width} × ${height}, ${size(bytes)}`;
  }

  /** Expect a decoded picture. @param {boolean} alone there is no original beside it */
  expect(width, height, alone) {
    this.alone = alone;
    const { cdc } = this.canvases;
    if (cdc.width !== width || cdc.height !== height) resize(cdc, width, height);
    $("compare").hidden = false;
    if (alone) {
      this.viewer.reset(width, height);
      this.#pair("cdc", "cdc");
    }
  }

  /** What is on the canvas of the decoded picture has changed. */
  showDecoded(label) {
    delete this.#bytes.faithful; // of the decode before
    this.#allow();
    this.#pair(this.alone ? "cdc" : "original", "cdc");
    $("chip-right").textContent = label;
    this.details.redraw();
  }

  /** The same file at gamma 0 on the left, what was asked for on the right. @param {number} bytes of the file */
  showBoth(bytes) {
    this.setBytes({ faithful: bytes });
    if (this.alone) return;
    this.#pair("faithful", "cdc");
    this.#label();
  }

  /** Sizes of files in bytes, by name; those of which there is one can be chosen. */
  setBytes(bytes) {
    this.#bytes = { ...this.#bytes, ...bytes };
    this.#allow();
    this.#label();
  }

  /** What there is, the original first: for a card. @returns {{name: string, canvas: HTMLCanvasElement, bytes: number}[]} */
  get pictures() {
    const names = ["original", "cdc", ...CODECS].filter((name) => name in this.#bytes);
    return names.map((name) => ({ name: NAMES[name], canvas: this.canvases[name], bytes: this.#bytes[name] }));
  }

  /** The point of the picture that is looked at. */
  get point() {
    return this.#point;
  }

  /** Nothing to see. */
  hide() {
    $("compare").hidden = true;
  }

  #choose(id) {
    const other = $(id === "left" ? "right" : "left");
    if ($(id).value === other.value) other.value = other.options[0].value;
    this.#pair($("left").value, $("right").value);
    this.#label();
  }

  /** What there is to see can be chosen; the difference, where there are two to differ. */
  #allow() {
    for (const option of document.querySelectorAll("#left option, #right option")) {
      const { value } = option;
      const there = value === "difference" ? "cdc" in this.#bytes && !this.alone : value in this.#bytes;
      option.disabled = !there && value !== "original" && value !== "cdc";
    }
    for (const name of CODECS) $(`detail-${name}`).closest("figure").hidden = !(name in this.#bytes);
  }

  #label() {
    for (const id of ["left", "right"]) {
      const name = $(id).value;
      if (name in this.#bytes) $(`chip-${id}`).textContent = `${NAMES[name]}, ${size(this.#bytes[name])}`;
      else if (name === "difference") $(`chip-${id}`).textContent = "Difference of original and CDC, 8 times as strong";
    }
    for (const [name, bytes] of Object.entries(this.#bytes).filter(([name]) => name !== "faithful")) $(`caption-${name}`).textContent = `${NAMES[name]}, ${size(bytes)}`;
  }

  #pair(left, right) {
    if (right === "difference") drawDifference(this.canvases.original, this.canvases.cdc, this.canvases.difference);
    this.viewer.show(left, right);
    $("left").value = left === "cdc" ? "original" : left;
    $("right").value = right === "original" ? "cdc" : right;
    const single = left === right;
    for (const id of ["left", "right"]) $(id).disabled = single;
    $("chip-left").hidden = single && left === "cdc";
    $("chip-right").hidden = single && left === "original";
    $("divider").setAttribute("aria-label", `Divider: ${NAMES[left]} on the left, ${NAMES[right]} on the right`);
  }
}
