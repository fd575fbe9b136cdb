// What the page says: progress, errors, and news for screen readers.

import { Problem } from "./problems.js";

const $ = (id) => document.getElementById(id);
const SAID_EVERY_MS = 3000; // a screen reader is told of progress no more often

let lastSaid = 0;

/** Show how far the work is; `share` 0..1, null where that is not known. */
export function showProgress(text, share = null) {
  $("stage-text").textContent = text;
  const bar = $("bar");
  bar.classList.toggle("unknown", share === null);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.setAttribute("aria-valuetext", text);
  bar.firstElementChild.style.width = share === null ? "" : `${share * 100}%`;
  if (performance.now() - lastSaid > SAID_EVERY_MS) say(text);
}

/** Tells how long it may still take, every second. */
export class Countdown {
  #timer = 0;

  /** @param {number} seconds that are left */
  start(seconds) {
    this.stop();
    const end = performance.now() + seconds * 1000;
    const show = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      $("eta").textContent = left > 1 ? `about ${left} s left` : "almost done";
    };
    show();
    this.#timer = setInterval(show, 1000);
  }

  stop() {
    clearInterval(this.#timer);
    $("eta").textContent = "";
  }
}

/** Tell screen readers. */
export function say(text) {
  lastSaid = performance.now();
  $("status").textContent = text;
}

/** @param {unknown} error shown in words; what is no Problem is a fault of the page */
export function showError(error) {
  if (!(error instanceof Problem)) console.warn(error);
  const problem = error instanceof Problem ? error : new Problem("Something went wrong", { detail: error.message, advice: "Try again." });
  const title = Object.assign(document.createElement("strong"), { textContent: problem.title });
  const lines = [problem.detail, problem.advice].filter(Boolean).map((text) => paragraph(text));
  if (problem.id) lines.push(paragraph(`Request ${problem.id}`, "id"));
  show(title, ...lines);
  if (problem.status === 401 || problem.status === 403) $("key").closest("details").open = true;
}

/** Something to know that is no error. */
export function showNotice(text) {
  show(paragraph(text, "plain"));
}

/** Take errors and notices away. */
export function clearMessages() {
  $("error").replaceChildren();
}

function show(...lines) {
  $("error").replaceChildren(...lines);
  $("error").scrollIntoView({ block: "nearest" });
}

function paragraph(textContent, className = "") {
  return Object.assign(document.createElement("p"), { textContent, className });
}
