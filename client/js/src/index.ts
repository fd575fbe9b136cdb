/** The API client. The decoder is "cdc-client/decoder", the element `<cdc-image>` "cdc-client/element". */

export {
  Client,
  type ClientOptions,
  type DecodeOptions,
  type EncodeOptions,
  type FileResult,
  Job,
  type JobEvent,
  type JobStatus,
  type Source,
} from "./client.js";
export { ApiError, CdcError, ConnectionFailed, JobCancelled } from "./errors.js";
