// The pictures on the stage: which two, their labels, the magnified parts.

import { Details } from "./details.js";
import { resize } from "./picture.js";
import { size } from "./results.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const NAMES = { original: "Original", cdc: "CDC", jpeg: "JPEG" };

/** Holds the three canvases, named original, cdc and jpeg. */
export class Comparison {
  canvases = { original: $("canvas-original"), cdc: $("canvas-cdc"), jpeg: $("canvas-jpeg") };
  #bytes = {};

  constructor() {
    const parts = { original: $("detail-original"), cdc: $("detail-cdc"), jpeg: $("detail-jpeg") };
    this.details = new Details(this.canvases, parts);
    this.viewer = new Viewer(
      { stage: $("stage"), world: $("world"), divider: $("divider"), canvases: this.canvases },
      {
        onZoom: (scale) => ($("zoom").value = `${Math.round(scale * 100)} %`),
        onFocus: (x, y) => this.details.lookAt(x, y),
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
    this.#allowJpeg();
    $("chip-left").textContent = `Original, ${width} × ${height}, ${size(bytes)}`;
  }

  /** Expect a decoded picture. @param {boolean} alone there is no original beside it */
  expect(width, height, alone) {
    this.alone = alone;
    resize(this.canvases.cdc, width, height);
    $("compare").hidden = false;
    if (alone) {
      this.viewer.reset(width, height);
      this.#pair("cdc", "cdc");
    }
  }

  /** What is on the canvas of the decoded picture has changed. */
  showDecoded(label) {
    this.#pair(this.alone ? "cdc" : "original", "cdc");
    $("chip-right").textContent = label;
    this.details.redraw();
  }

  /** Sizes of files in bytes, by name; those of which there is one can be chosen. */
  setBytes(bytes) {
    this.#bytes = { ...this.#bytes, ...bytes };
    this.#allowJpeg();
    this.#label();
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

  #allowJpeg() {
    for (const id of ["left", "right"]) $(id).querySelector("[value=jpeg]").disabled = !("jpeg" in this.#bytes);
  }

  #label() {
    for (const id of ["left", "right"]) {
      const name = $(id).value;
      if (name in this.#bytes) $(`chip-${id}`).textContent = `${NAMES[name]}, ${size(this.#bytes[name])}`;
    }
    for (const [name, bytes] of Object.entries(this.#bytes)) $(`caption-${name}`).textContent = `${NAMES[name]}, ${size(bytes)}`;
  }

  #pair(left, right) {
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
