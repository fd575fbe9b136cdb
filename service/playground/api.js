// The service, seen from the page. Addresses are relative to the page, so that it works behind a path prefix.

import { follow } from "./events.js";
import { Problem } from "./problems.js";

const CDC_TYPE = "image/x-cdc";
const AUTO_DEADLINE_MS = 10_000;
const ENDED = new Set(["succeeded", "failed", "cancelled", "expired"]);

/** Calls of the service. `key` is an API key, "" for none; it is kept in memory alone. */
export class Service {
  key = "";

  /** What the page has to know of the service: {version, docs, samples, model}. */
  async about() {
    return (await this.#fetch("playground/about")).json();
  }

  /** Seconds that an encode and a decode of that size are expected to take: {encode, decode}. */
  async estimate(width, height, { steps, gamma, effort }) {
    const query = new URLSearchParams({ width, height, steps, gamma, effort });
    return (await this.#fetch(`playground/estimate?${query}`)).json();
  }

  /** The best file of another codec within so many bytes. @returns {Promise<{blob: Blob, headers: Headers}>} */
  async compare(file, format, bytes, signal) {
    const query = new URLSearchParams({ format, max_bytes: bytes });
    return picture(await this.#fetch(`playground/compare?${query}`, post(file, typeOf(file), signal)));
  }

  /** Encode a picture. @returns {Promise<{blob: Blob, headers: Headers}>} the .cdc file */
  async encode(file, query, signal) {
    const response = await this.#fetch(`encode?${new URLSearchParams(query)}`, post(file, typeOf(file), signal));
    return { blob: new Blob([await response.arrayBuffer()], { type: CDC_TYPE }), headers: response.headers };
  }

  /** What a .cdc file says of itself. */
  async inspect(file, signal) {
    return (await this.#fetch("inspect", post(file, CDC_TYPE, signal))).json();
  }

  /** Decode at once, without previews, in as many steps as there is time for. */
  async decodeNow(file, query, signal) {
    const request = post(file, CDC_TYPE, signal, { "X-Deadline-Ms": AUTO_DEADLINE_MS });
    return picture(await this.#fetch(`decode?${new URLSearchParams({ ...query, format: "png" })}`, request));
  }

  /** Begin to decode. @returns {Promise<object>} the job */
  async submit(file, query, signal) {
    const parameters = new URLSearchParams({ ...query, format: "png", preview: "true" });
    const request = post(file, CDC_TYPE, signal, { Prefer: "respond-async" });
    return (await this.#fetch(`decode?${parameters}`, request)).json();
  }

  /** Yield what happens to a job as {type, data}, until it ends. */
  async *events(id, signal) {
    const open = (last) => this.#fetch(`jobs/${id}/events`, { signal, headers: last ? { "Last-Event-ID": last } : {} });
    const isLast = (event) => event.type === "state" && ENDED.has(JSON.parse(event.data).state);
    for await (const event of follow(open, isLast)) yield { type: event.type, data: JSON.parse(event.data) };
  }

  /** The picture a job has made. */
  async result(id, signal) {
    return picture(await this.#fetch(`jobs/${id}/result`, { signal }));
  }

  /** Cancel a job. */
  async cancel(id) {
    await this.#fetch(`jobs/${id}`, { method: "DELETE" });
  }

  async #fetch(address, request = {}) {
    const headers = new Headers(request.headers);
    if (this.key) headers.set("Authorization", `Bearer ${this.key}`);
    let response;
    try {
      response = await fetch(address, { ...request, headers, credentials: "same-origin", cache: "no-store" });
    } catch (error) {
      throw error.name === "AbortError" ? error : Problem.unreachable();
    }
    if (!response.ok) throw await Problem.from(response);
    return response;
  }
}

function typeOf(file) {
  return file.type.startsWith("image/") ? file.type : "application/octet-stream";
}

function post(body, type, signal, headers = {}) {
  return { method: "POST", body, signal, headers: { ...headers, "Content-Type": type } };
}

async function picture(response) {
  return { blob: await response.blob(), headers: response.headers };
}

/** Server-Timing (W3C) as [name, milliseconds] pairs. */
export function timings(headers) {
  const parts = (headers.get("server-timing") ?? "").split(",");
  return parts.map((part) => /^\s*([\w-]+);dur=([\d.]+)/.exec(part)).filter(Boolean).map((m) => [m[1], Number(m[2])]);
}
