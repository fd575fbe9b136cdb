// The form: what is asked for, as queries of the service.

import { Problem } from "./problems.js";

const MAX_SEED = 2n ** 63n - 1n;
const TARGETS = {
  quality: { whole: true, least: 1, most: 100, words: "Quality must be a whole number, 1 to 100" },
  max_bytes: { whole: true, least: 1, most: Number.MAX_SAFE_INTEGER, words: "Bytes must be a whole number, at least 1" },
  target_bpp: { whole: false, least: 1e-6, most: 64, words: "Bits per pixel must be a number above 0, at most 64" },
};

/** Reads and keeps the form in step with itself. */
export class Settings {
  /** @param {HTMLFormElement} form */
  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    form.addEventListener("input", (event) => {
      this.#update();
      if (event.target !== this.#field("key")) this.onChange();
    });
    for (const button of form.querySelectorAll("[data-steps]")) {
      button.addEventListener("click", () => {
        this.#field("steps").value = button.dataset.steps;
        this.#field("gamma").value = button.dataset.gamma;
        this.#field("auto").checked = false;
        this.#update();
        this.onChange();
      });
    }
    this.#update();
  }

  /** Begin with the defaults of the service's model. @param {{default_steps: number, default_gamma: number, max_steps: number, max_effort: number}} model */
  setDefaults(model) {
    const [steps, gamma] = [this.#field("steps"), this.#field("gamma")];
    steps.max = String(Math.min(Number(steps.max), model.max_steps));
    steps.value = String(model.default_steps);
    gamma.value = String(model.default_gamma);
    this.#field("effort").max = String(model.max_effort);
    this.#update();
  }

  /** Denoising steps that are asked for; those of auto are few. */
  get steps() {
    return this.#field("auto").checked ? 1 : Number(this.#field("steps").value);
  }

  /** Strength of the start noise that is asked for. */
  get gamma() {
    return Number(this.#field("gamma").value);
  }

  /** What the encoder is to spend, 1..9. */
  get effort() {
    return Number(this.#field("effort").value);
  }

  /** Ask for so many steps. */
  set steps(value) {
    this.#field("steps").value = String(value);
    this.#field("auto").checked = false;
    this.#update();
    this.onChange();
  }

  /** Query of POST /encode. Throws a Problem. */
  encodeQuery() {
    const name = this.#target();
    const { whole, least, most, words } = TARGETS[name];
    const text = this.#field(name).value.trim();
    const value = Number(text);
    if (!text || !(value >= least && value <= most) || (whole && !Number.isInteger(value))) throw this.#fault(name, words);
    return this.effort === 1 ? { [name]: text } : { [name]: text, effort: this.effort };
  }

  /** Query of POST /decode; `steps` may be "auto". Throws a Problem. */
  decodeQuery() {
    const query = { steps: this.#field("auto").checked ? "auto" : this.#field("steps").value, gamma: this.#field("gamma").value };
    const seed = this.#field("seed").value.trim();
    if (seed) {
      if (!/^\d{1,19}$/.test(seed) || BigInt(seed) > MAX_SEED) {
        throw this.#fault("seed", "The seed must be a whole number from 0 to 2^63 - 1, or empty");
      }
      query.seed = seed;
    }
    return query;
  }

  /** The API key, "" for none. */
  get key() {
    return this.#field("key").value.trim();
  }

  /** What is decoded only needs no target. */
  set decodeOnly(value) {
    document.getElementById("encode-fields").disabled = value;
  }

  #field(name) {
    return this.form.querySelector(`#${name}`);
  }

  #target() {
    return this.form.querySelector("[name=target]:checked").value;
  }

  #fault(name, words) {
    const field = this.#field(name);
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return new Problem(words, { advice: "Correct the setting and try again." });
  }

  #update() {
    const target = this.#target();
    for (const block of this.form.querySelectorAll("[data-target]")) block.hidden = block.dataset.target !== target;
    const auto = this.#field("auto").checked;
    this.#field("steps").disabled = auto;
    this.#field("quality-value").textContent = this.#field("quality").value;
    this.#field("effort-value").textContent = this.#field("effort").value;
    this.#field("steps-value").textContent = auto ? "auto" : this.#field("steps").value;
    this.#field("gamma-value").textContent = String(Number(this.#field("gamma").value));
    for (const field of this.form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  }
}
