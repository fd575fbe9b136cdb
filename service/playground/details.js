// The same part of several pictures side by side, magnified.

const MAGNIFICATION = 2; // CSS pixels per picture pixel

/** Draws parts of `sources` on the canvases of `targets` of the same name. */
export class Details {
  #point = [0, 0];
  #pending = false;

  /** @param {Object<string, HTMLCanvasElement>} sources @param {Object<string, HTMLCanvasElement>} targets */
  constructor(sources, targets) {
    this.sources = sources;
    this.targets = targets;
    new ResizeObserver(() => this.redraw()).observe(targets.cdc);
  }

  /** Show what lies around that point of the picture. */
  lookAt(x, y) {
    this.#point = [x, y];
    this.redraw();
  }

  /** Draw again, with the next frame. */
  redraw() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      for (const [name, target] of Object.entries(this.targets)) this.#draw(this.sources[name], target);
    });
  }

  #draw(source, target) {
    const { clientWidth: width, clientHeight: height } = target;
    if (!width || !height) return;
    const density = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * density), Math.round(height * density)];
    if (target.width !== w || target.height !== h) Object.assign(target, { width: w, height: h });
    const context = target.getContext("2d", { alpha: false });
    const [partWidth, partHeight] = [width / MAGNIFICATION, height / MAGNIFICATION];
    const start = (at, part, whole) => Math.max(0, Math.min(whole - part, at - part / 2));
    const x = start(this.#point[0], partWidth, source.width);
    const y = start(this.#point[1], partHeight, source.height);
    context.imageSmoothingEnabled = false;
    context.fillStyle = "#808080";
    context.fillRect(0, 0, w, h);
    context.drawImage(source, x, y, partWidth, partHeight, 0, 0, w, h);
  }
}
