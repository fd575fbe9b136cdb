// Two pictures of equal size, one left and one right of a divider, that zoom and move together.

const MIN_SCALE = 0.02;
const MAX_SCALE = 32;
const MAX_FIT = 4; // a thumbnail does not fill the screen
const ZOOM_STEP = 1.25;
const MOVE_PX = 48; // of an arrow key
const WHEEL_SPEED = 0.0018;
const CRISP_SCALE = 2; // from here pixels are shown as squares

/** Shows two of the given canvases. Positions are CSS pixels of the stage; `scale` is CSS pixels per picture pixel. */
export class Viewer {
  #pointers = new Map();
  #fitted = true;
  #width = 1;
  #height = 1;
  #scale = 1;
  #x = 0;
  #y = 0;
  #split = 0.5; // of the stage's width
  #pair = ["original", "cdc"];

  /**
   * @param {{stage: HTMLElement, world: HTMLElement, divider: HTMLElement, canvases: Object<string, HTMLCanvasElement>}} parts
   * @param {{onZoom: (scale: number) => void, onFocus: (x: number, y: number) => void}} listeners
   *   `onFocus` gets the point of the picture that is looked at
   */
  constructor(parts, listeners) {
    Object.assign(this, parts, listeners);
    this.stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const type of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(type, (event) => this.#pointers.delete(event.pointerId));
    }
    this.stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.stage.addEventListener("dblclick", (event) => this.#toggle(event));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.divider.addEventListener("pointerdown", (event) => this.#grab(event));
    this.divider.addEventListener("keydown", (event) => this.#slide(event));
    new ResizeObserver(() => (this.#fitted ? this.fit() : this.#draw())).observe(this.stage);
  }

  /** Take pictures of that size, the divider in the middle. */
  reset(width, height) {
    [this.#width, this.#height, this.#split] = [width, height, 0.5];
    this.stage.style.setProperty("--ratio", String(width / height));
    this.fit();
    this.onFocus(width / 2, height / 2);
  }

  /** Show these canvases, by name; the same one twice shows it alone. */
  show(left, right) {
    this.#pair = [left, right];
    this.#draw();
  }

  /** The whole picture. */
  fit() {
    const { clientWidth: w, clientHeight: h } = this.stage;
    if (!w || !h) return;
    this.#fitted = true;
    this.#scale = Math.min(w / this.#width, h / this.#height, MAX_FIT);
    this.#x = (w - this.#width * this.#scale) / 2;
    this.#y = (h - this.#height * this.#scale) / 2;
    this.#draw();
  }

  /** Zoom by a factor around a point of the stage, its centre if none is given. */
  zoomBy(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, this.#scale * factor));
    const real = scale / this.#scale;
    this.#fitted = false;
    this.#scale = scale;
    this.#x = x - (x - this.#x) * real;
    this.#y = y - (y - this.#y) * real;
    this.#draw();
    this.#lookAt(x, y);
  }

  /** One picture pixel on `scale` CSS pixels. */
  zoomTo(scale) {
    this.zoomBy(scale / this.#scale);
  }

  zoomIn() {
    this.zoomBy(ZOOM_STEP);
  }

  zoomOut() {
    this.zoomBy(1 / ZOOM_STEP);
  }

  #moveBy(dx, dy) {
    this.#fitted = false;
    this.#x += dx;
    this.#y += dy;
    this.#draw();
  }

  /** Keep the picture on the stage: centred where it is smaller, no gap at its sides where it is larger. */
  #clamp() {
    const bound = (position, size, room) =>
      size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, position));
    this.#x = bound(this.#x, this.#width * this.#scale, this.stage.clientWidth);
    this.#y = bound(this.#y, this.#height * this.#scale, this.stage.clientHeight);
  }

  #draw() {
    this.#clamp();
    const style = this.world.style;
    style.transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
    this.world.classList.toggle("crisp", this.#scale >= CRISP_SCALE);
    const [left, right] = this.#pair;
    const single = left === right;
    const edge = this.stage.clientWidth * this.#split;
    const inside = Math.min(this.#width, Math.max(0, (edge - this.#x) / this.#scale));
    for (const [name, canvas] of Object.entries(this.canvases)) {
      canvas.hidden = name !== left && name !== right;
      if (single) canvas.style.clipPath = "none";
      else if (name === left) canvas.style.clipPath = `inset(0 ${this.#width - inside}px 0 0)`;
      else canvas.style.clipPath = `inset(0 0 0 ${inside}px)`;
    }
    this.divider.hidden = single;
    this.divider.style.left = `${edge}px`;
    const percent = Math.round(this.#split * 100);
    this.divider.setAttribute("aria-valuenow", String(percent));
    this.divider.setAttribute("aria-valuetext", `${percent} % from the left`);
    this.stage.classList.toggle("fitted", this.#fitted);
    this.onZoom(this.#scale);
  }

  #place(split) {
    this.#split = Math.min(1, Math.max(0, split));
    this.#draw();
  }

  #local(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #lookAt(x, y) {
    const bound = (value, size) => Math.min(size, Math.max(0, value));
    this.onFocus(bound((x - this.#x) / this.#scale, this.#width), bound((y - this.#y) / this.#scale, this.#height));
  }

  #press(event) {
    if (event.button !== 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, this.#local(event));
    this.#lookAt(...this.#local(event));
  }

  #move(event) {
    const now = this.#local(event);
    const before = this.#pointers.get(event.pointerId);
    if (before === undefined) {
      this.#lookAt(...now);
      return;
    }
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId);
    this.#pointers.set(event.pointerId, now);
    if (others.length === 0) {
      if (!this.#fitted) this.#moveBy(now[0] - before[0], now[1] - before[1]);
      this.#lookAt(...now);
    } else {
      const [, still] = others[0];
      const distance = (p) => Math.hypot(p[0] - still[0], p[1] - still[1]) || 1;
      this.zoomBy(distance(now) / distance(before), (now[0] + still[0]) / 2, (now[1] + still[1]) / 2);
    }
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.zoomBy(Math.exp(-event.deltaY * lines * WHEEL_SPEED), ...this.#local(event));
  }

  #toggle(event) {
    if (this.#fitted) this.zoomBy(Math.max(2, 1 / this.#scale), ...this.#local(event));
    else this.fit();
  }

  #key(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowLeft: [MOVE_PX, 0],
      ArrowRight: [-MOVE_PX, 0],
      ArrowUp: [0, MOVE_PX],
      ArrowDown: [0, -MOVE_PX],
    };
    if (event.key in moves) {
      this.#moveBy(...moves[event.key]);
      this.#lookAt(this.stage.clientWidth / 2, this.stage.clientHeight / 2);
    } else if (event.key === "+" || event.key === "=") this.zoomIn();
    else if (event.key === "-") this.zoomOut();
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoomTo(1);
    else return;
    event.preventDefault();
  }

  #grab(event) {
    if (event.button !== 0) return;
    event.stopPropagation();
    event.preventDefault();
    this.divider.focus({ focusVisible: false });
    this.divider.setPointerCapture(event.pointerId);
    const follow = (moved) => {
      moved.stopPropagation();
      this.#place(this.#local(moved)[0] / this.stage.clientWidth);
    };
    const release = () => {
      this.divider.removeEventListener("pointermove", follow);
      for (const type of ["pointerup", "pointercancel"]) this.divider.removeEventListener(type, release);
    };
    this.divider.addEventListener("pointermove", follow);
    for (const type of ["pointerup", "pointercancel"]) this.divider.addEventListener(type, release);
  }

  #slide(event) {
    const step = event.shiftKey ? 0.1 : 0.01;
    const next = {
      ArrowLeft: this.#split - step,
      ArrowDown: this.#split - step,
      ArrowRight: this.#split + step,
      ArrowUp: this.#split + step,
      PageDown: this.#split - 0.1,
      PageUp: this.#split + 0.1,
      Home: 0,
      End: 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.#place(next);
  }
}
