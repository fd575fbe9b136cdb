/** The API of the service: encode, decode, inspect, models, and jobs with events. */

import { CdcError, ConnectionFailed, JobCancelled, errorOf, ApiError } from "./errors.js";
import { readEvents } from "./sse.js";

export interface ClientOptions {
  readonly apiKey?: string;
  /** Tries after the first, for answers that ask for another and broken connections. Default 4. */
  readonly maxRetries?: number;
  /** In place of the global one. */
  readonly fetch?: typeof fetch;
}

export interface EncodeOptions {
  /** 1..100; 50 if no target is given. */
  readonly quality?: number;
  readonly targetBpp?: number;
  readonly maxBytes?: number;
  /** 1 (one pass) .. 9: smaller files, longer work. */
  readonly effort?: number;
  readonly model?: string;
  readonly alpha?: "keep" | "drop";
  readonly metadata?: "strip" | "copyright" | "keep";
  readonly colour?: "keep" | "srgb";
  /** What becomes of a drawing that is smaller without loss. */
  readonly drawing?: "refuse" | "allow";
  readonly frame?: "first";
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

export interface DecodeOptions {
  readonly steps?: number | "auto";
  readonly gamma?: number;
  readonly seed?: bigint;
  readonly model?: string;
  readonly deterministic?: boolean;
  readonly format?: "png" | "webp" | "jpeg";
  /** "x,y,w,h" in pixels, or "pct:x,y,w,h". */
  readonly region?: string;
  readonly width?: number;
  readonly height?: number;
  readonly fit?: "inside" | "contain" | "cover";
  readonly colour?: "keep" | "srgb";
  /** Of a job: previews among its events. */
  readonly preview?: boolean;
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/** A file and what the service says of it. */
export interface FileResult {
  readonly data: Uint8Array<ArrayBuffer>;
  readonly mediaType: string;
  readonly width: number;
  readonly height: number;
  readonly bpp: number;
  readonly model: string;
  readonly quality: number | undefined;
  readonly steps: number | undefined;
  readonly gamma: number | undefined;
  /** As text: it may exceed 2^53. */
  readonly seed: string | undefined;
  /** SHA-256 of `data` in hexadecimal. */
  readonly digest: string;
  readonly requestId: string | undefined;
}

/** A job as `GET /jobs/{id}` shows it; names are the service's. */
export interface JobStatus {
  readonly id: string;
  readonly operation: "encode" | "decode";
  readonly state: "queued" | "running" | "succeeded" | "failed" | "cancelled" | "expired";
  readonly position: number | null;
  readonly estimate_seconds: number | null;
  readonly step: number | null;
  readonly steps: number | null;
  readonly error: Record<string, unknown> | null;
  readonly result: { readonly href: string; readonly media_type: string; readonly bytes: number } | null;
}

export type JobEvent =
  | { readonly id: string; readonly type: "state"; readonly status: JobStatus }
  | { readonly id: string; readonly type: "progress"; readonly step: number; readonly steps: number }
  | {
      readonly id: string;
      readonly type: "preview";
      readonly step: number;
      readonly steps: number;
      readonly image: Uint8Array<ArrayBuffer>;
      readonly mediaType: string;
    };

export type Source = Uint8Array<ArrayBuffer> | ArrayBuffer | Blob;

const CDC_TYPE = "image/x-cdc";
const RETRIED = new Set([408, 429, 500, 502, 503, 504]);
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;
const ENDED = new Set(["succeeded", "failed", "cancelled", "expired"]);

/** Calls of a service at `baseUrl`. Every call throws ApiError, ConnectionFailed, or the reason of its signal. */
export class Client {
  private readonly base: string;
  private readonly options: ClientOptions;

  constructor(baseUrl: string | URL, options: ClientOptions = {}) {
    const url = new URL(baseUrl);
    if (url.protocol !== "http:" && url.protocol !== "https:") throw new TypeError("the address must be http or https");
    this.base = url.href.replace(/\/$/, "");
    this.options = options;
  }

  /** Compress an image file. */
  async encode(image: Source, options: EncodeOptions = {}): Promise<FileResult> {
    return fileIn(await this.send("POST", `/encode?${encodeQuery(options)}`, { ...work(options), body: image }));
  }

  /** Decode a `.cdc` file to an image file. */
  async decode(file: Source, options: DecodeOptions = {}): Promise<FileResult> {
    const { preview: _, ...others } = options;
    const request = { ...work(options, CDC_TYPE), body: file };
    return fileIn(await this.send("POST", `/decode?${decodeQuery(others)}`, request));
  }

  /** What a `.cdc` file says of itself, and what its decode costs. */
  async inspect(file: Source, signal?: AbortSignal): Promise<Record<string, unknown>> {
    return json(await this.send("POST", "/inspect", { ...work(signal ? { signal } : {}, CDC_TYPE), body: file }));
  }

  /** Installed models. */
  async models(): Promise<readonly Record<string, unknown>[]> {
    return (await json<{ models: Record<string, unknown>[] }>(await this.send("GET", "/models"))).models;
  }

  /** Encode as a job, which outlives its request. */
  async submitEncode(image: Source, options: EncodeOptions = {}): Promise<Job> {
    return this.submit(`/encode?${encodeQuery(options)}`, { ...work(options), body: image });
  }

  /** Decode as a job, which outlives its request. */
  async submitDecode(file: Source, options: DecodeOptions = {}): Promise<Job> {
    return this.submit(`/decode?${decodeQuery(options)}`, { ...work(options, CDC_TYPE), body: file });
  }

  /** A job by its id. */
  async job(id: string): Promise<Job> {
    return new Job(this, await this.jobStatus(id));
  }

  private async submit(path: string, request: RequestInit): Promise<Job> {
    const key = { "Idempotency-Key": randomKey() }; // a repetition is the same job
    const headers = { ...(request.headers as Record<string, string>), Prefer: "respond-async", ...key };
    return new Job(this, await json<JobStatus>(await this.send("POST", path, { ...request, headers })));
  }

  /** Used by `Job`. */
  async jobStatus(id: string, method: "GET" | "DELETE" = "GET"): Promise<JobStatus> {
    return json<JobStatus>(await this.send(method, `/jobs/${encodeURIComponent(id)}`));
  }

  /** Send a request, again where that helps; the answer is a success. */
  async send(method: string, path: string, request: RequestInit = {}): Promise<Response> {
    const key = this.options.apiKey;
    const headers = { ...(request.headers as Record<string, string>), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    for (let tried = 0; ; tried++) {
      let failure: CdcError;
      let wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tried) * (0.5 + Math.random() / 2);
      try {
        const answer = await (this.options.fetch ?? fetch)(this.base + path, { ...request, method, headers });
        if (answer.ok) return answer;
        const problem: unknown = await answer.json().catch(() => null);
        const known = (name: string): string | undefined => answer.headers.get(name) ?? undefined;
        const error = errorOf(problem, answer.status, known("x-request-id"), known("retry-after"));
        if (!RETRIED.has(answer.status)) throw error;
        if (error.retryAfter !== undefined) wait = 1000 * error.retryAfter;
        failure = error;
      } catch (error) {
        request.signal?.throwIfAborted();
        if (error instanceof CdcError) throw error;
        failure = new ConnectionFailed(`${method} ${path.split("?")[0]}: ${error instanceof Error ? error.message : "failed"}`);
      }
      if (tried >= (this.options.maxRetries ?? 4)) throw failure;
      await new Promise((resolve) => setTimeout(resolve, wait));
      request.signal?.throwIfAborted();
    }
  }
}

/** Work that outlives its request. */
export class Job {
  constructor(
    private readonly client: Client,
    /** As it stood when it was last heard of. */
    public status: JobStatus,
  ) {}

  get id(): string {
    return this.status.id;
  }

  get ended(): boolean {
    return ENDED.has(this.status.state);
  }

  /** Ask how it stands. */
  async refresh(): Promise<JobStatus> {
    return (this.status = await this.client.jobStatus(this.id));
  }

  /** Cancel it, within one denoising step. */
  async cancel(): Promise<JobStatus> {
    return (this.status = await this.client.jobStatus(this.id, "DELETE"));
  }

  /** What happens to it until it ends: every event once, also where the connection breaks meanwhile. */
  async *events(signal?: AbortSignal): AsyncGenerator<JobEvent> {
    let last: string | undefined;
    for (let broken = 0; broken < 5; ) {
      const headers: Record<string, string> = last === undefined ? {} : { "Last-Event-ID": last };
      const path = `/jobs/${encodeURIComponent(this.id)}/events`;
      const answer = await this.client.send("GET", path, { headers, ...(signal ? { signal } : {}) });
      if (answer.status === 204 || answer.body === null) return;
      try {
        for await (const { id, type, data } of readEvents(answer.body)) {
          const event = eventOf(id, type, data);
          if (event === null) continue;
          broken = 0;
          last = id;
          if (event.type === "state") this.status = event.status;
          yield event;
          if (this.ended) return;
        }
      } catch (error) {
        if (error instanceof CdcError) throw error;
        signal?.throwIfAborted();
      }
      broken += 1;
    }
    throw new ConnectionFailed("the events ended before the job");
  }

  /** Wait for the result. Throws JobCancelled, or the ApiError why it failed. */
  async result(signal?: AbortSignal): Promise<FileResult> {
    if (!this.ended) for await (const _ of this.events(signal));
    if (!this.ended) await this.refresh();
    if (this.status.state === "cancelled") throw new JobCancelled(`job ${this.id} was cancelled`);
    if (this.status.state === "failed") throw errorOf(this.status.error, Number(this.status.error?.["status"] ?? 500));
    return fileIn(await this.client.send("GET", `/jobs/${encodeURIComponent(this.id)}/result`, signal ? { signal } : {}));
  }
}

function eventOf(id: string, type: string, data: string): JobEvent | null {
  let values: Record<string, unknown>;
  try {
    values = JSON.parse(data) as Record<string, unknown>;
  } catch {
    throw new CdcError("an event makes no sense: is this a CDC service?");
  }
  if (type === "state") return { id, type, status: values as unknown as JobStatus };
  const [step, steps] = [Number(values["step"]), Number(values["steps"])];
  if (type === "progress") return { id, type, step, steps };
  if (type !== "preview") return null;
  const image = Uint8Array.from(atob(String(values["image"])), (character) => character.charCodeAt(0));
  return { id, type, step, steps, image, mediaType: String(values["media_type"]) };
}

function work(options: { deadlineMs?: number; signal?: AbortSignal }, contentType?: string): RequestInit {
  const headers: Record<string, string> = { "Content-Type": contentType ?? "application/octet-stream" };
  if (options.deadlineMs !== undefined) headers["X-Deadline-Ms"] = String(Math.max(1, Math.round(options.deadlineMs)));
  return { headers, ...(options.signal ? { signal: options.signal } : {}) };
}

function query(values: Record<string, unknown>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
}

function encodeQuery(options: EncodeOptions): string {
  const { targetBpp, maxBytes, deadlineMs: _, signal: __, ...others } = options;
  return query({ ...others, target_bpp: targetBpp, max_bytes: maxBytes });
}

function decodeQuery(options: DecodeOptions): string {
  const { deadlineMs: _, signal: __, ...others } = options;
  return query(others);
}

async function json<T = Record<string, unknown>>(answer: Response): Promise<T> {
  return (await answer.json()) as T;
}

async function fileIn(answer: Response): Promise<FileResult> {
  const text = (name: string): string | undefined => answer.headers.get(name) ?? undefined;
  const number = (name: string): number | undefined => (text(name) === undefined ? undefined : Number(text(name)));
  const [width, height, bpp] = ["x-cdc-width", "x-cdc-height", "x-cdc-bpp"].map(number);
  const [mediaType, model, etag] = ["content-type", "x-cdc-model", "etag"].map(text);
  if (width === undefined || height === undefined || bpp === undefined || !mediaType || !model || !etag) {
    throw new CdcError("the answer lacks headers: is this a CDC service that shows them to this page?");
  }
  return {
    data: new Uint8Array(await answer.arrayBuffer()),
    ...{ mediaType, width, height, bpp, model },
    quality: number("x-cdc-quality"),
    steps: number("x-cdc-steps"),
    gamma: number("x-cdc-gamma"),
    seed: text("x-cdc-seed"),
    digest: etag.replaceAll('"', ""),
    requestId: text("x-request-id"),
  };
}

function randomKey(): string {
  return Array.from({ length: 4 }, () => Math.random().toString(36).slice(2, 10)).join("");
}

export { ApiError, CdcError, ConnectionFailed, JobCancelled };
