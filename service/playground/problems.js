// Errors of the service (RFC 9457) in words: what happened, and what to do about it.

/** What to do, by the last part of a problem's type. */
const ADVICE = {
  "animated-image": "Choose an image with a single frame.",
  "body-too-large": "Choose a smaller file.",
  "broken-image": "Choose another file: this one is damaged.",
  "busy": "Wait a moment, then try again.",
  "checksum-mismatch": "Fetch the file again: it was damaged on its way.",
  "corrupt-stream": "Fetch the file again: its coded data makes no sense.",
  "deadline-exceeded": "Choose a number of steps in place of auto, or try again when the service is less busy.",
  "draining": "The service is being restarted. Try again in a moment.",
  "empty-body": "Choose a file that is not empty.",
  "internal-error": "Try again. If it stays, tell the operator the request id.",
  "invalid-parameter": "Correct the setting and try again.",
  "job-cancelled": "Press the button to start again.",
  "job-expired": "Press the button to start again: the result is no longer kept.",
  "keys-unavailable": "API keys cannot be checked now. Try again in a moment.",
  "malformed-file": "Choose a file that this service made.",
  "lossless-is-smaller": "Keep this drawing or screenshot as PNG or WebP, or choose a quality of at most 50.",
  "not-a-cdc-file": "Choose a .cdc file, or a photograph to compress.",
  "not-allowed": "This API key may not do that. Enter another one below Settings.",
  "not-authenticated": "Enter a valid API key below Settings and try again.",
  "not-ready": "The service is still loading its models. Try again in a moment.",
  "overloaded": "Too many people use the service. Try again in a moment.",
  "queue-unavailable": "The service cannot reach its queue. Try again in a moment.",
  "rate-limited": "This API key has been used too often. Wait a moment, then try again.",
  "slow-body": "The upload took too long. Try again, or choose a smaller file.",
  "target-unreachable": "Allow more bytes, or choose a quality.",
  "too-many-pixels": "Choose a smaller image.",
  "too-much-work": "Take fewer steps, or a smaller image.",
  "truncated-file": "Fetch the file again: its end is missing.",
  "unknown-codec": "Ask the operator to install the model that made this file.",
  "unknown-job": "Press the button to start again: the service has forgotten the work.",
  "unsupported-image": "Choose a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM image, or a .cdc file.",
  "unsupported-version": "The file needs a later version of the service.",
  "worker-failed": "Try again. If it fails again, choose another image.",
};

const BY_STATUS = {
  401: "Enter an API key below Settings and try again.",
  403: "This API key may not do that. Enter another one.",
  404: "Check the address of the service.",
  413: "Choose a smaller image, or fewer steps.",
  429: "Wait a moment, then try again.",
  502: "Try again in a moment.",
  503: "Try again in a moment.",
  504: "Try again in a moment.",
};

/** An error with a title, a detail, what to do, and the id under which the service has logged it. */
export class Problem extends Error {
  /**
   * @param {string} title
   * @param {{detail?: string, advice?: string, id?: string, status?: number, name?: string}} more
   */
  constructor(title, { detail = "", advice = "", id = "", status = 0, name = "" } = {}) {
    super(title);
    this.title = title;
    this.detail = detail;
    this.advice = advice;
    this.id = id;
    this.status = status;
    this.kind = name;
  }

  /** From the members of a problem object, and the seconds of Retry-After where they were given. */
  static of(members, retryAfter = null) {
    const name = String(members.type ?? "").split("/").pop();
    const status = Number(members.status) || 0;
    let advice = ADVICE[name] ?? BY_STATUS[status] ?? "Try again.";
    if (retryAfter !== null) advice = advice.replace("a moment", retryAfter === 1 ? "a second" : `${retryAfter} seconds`);
    const detail = members.detail && members.detail !== members.title ? sentence(members.detail) : "";
    const title = members.title || `The service answered ${status}`;
    return new Problem(title, { detail, advice, id: members.instance ?? "", status, name });
  }

  /** From an answer that is no success. */
  static async from(response) {
    const seconds = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
    const retryAfter = Number.isFinite(seconds) ? seconds : null;
    let members = {};
    if ((response.headers.get("content-type") ?? "").includes("json")) members = await response.json().catch(() => ({}));
    return Problem.of({ instance: response.headers.get("x-request-id"), ...members, status: response.status }, retryAfter);
  }

  /** No answer at all. */
  static unreachable() {
    return new Problem("The service cannot be reached", { advice: "Check that it runs and that you are online, then try again." });
  }
}

/** A text with a capital at its start and a full stop at its end. */
function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
