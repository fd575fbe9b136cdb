/** What a call can fail with: `ApiError` where the service answered with a problem (RFC 9457), else `ConnectionFailed`. */

/** Base of the errors of the API client. */
export class CdcError extends Error {
  override readonly name: string = "CdcError";
}

/** There was no answer: the service cannot be reached, or the connection broke. */
export class ConnectionFailed extends CdcError {
  override readonly name = "ConnectionFailed";
}

/** The job was cancelled, here or elsewhere. */
export class JobCancelled extends CdcError {
  override readonly name = "JobCancelled";
}

/** A problem object of the service. `type` is stable, such as "/problems/checksum-mismatch". */
export class ApiError extends CdcError {
  override readonly name = "ApiError";
  constructor(
    readonly status: number,
    readonly type: string,
    readonly title: string,
    readonly detail: string,
    /** Names the call in the logs of the service. */
    readonly requestId: string | undefined,
    /** Seconds until the service wants to be asked again. */
    readonly retryAfter: number | undefined,
    /** Of invalid parameters: each fault with `in`, `parameter` and `message`. */
    readonly errors: readonly Record<string, unknown>[] = [],
  ) {
    super(`${detail} (${status} ${type.replace(/^\/problems\//, "")})`);
  }
}

/** The error of a problem object; one from a proxy, which is none, still gets a status. */
export function errorOf(problem: unknown, status: number, requestId?: string, retryAfter?: string): ApiError {
  const values = typeof problem === "object" && problem !== null ? (problem as Record<string, unknown>) : {};
  const title = text(values["title"], "the answer is not a problem object");
  const errors = Array.isArray(values["errors"]) ? (values["errors"] as Record<string, unknown>[]) : [];
  const seconds = retryAfter !== undefined && /^\d+$/.test(retryAfter) ? Number(retryAfter) : undefined;
  const type = text(values["type"], "about:blank");
  return new ApiError(status, type, title, text(values["detail"], title), requestId, seconds, errors);
}

function text(value: unknown, fallback: string): string {
  return typeof value === "string" ? value : fallback;
}
