/** Decodes `.cdc` files in browsers and node, without a service. */

export type { ColorSpace } from "./colour.js";
export { type CdcFile, type FileErrorCode, UnreadableFile, parse } from "./container.js";
export { type DecodeOptions, type DecodedImage, Decoder } from "./decoder.js";
export type { Device, RuntimeOptions } from "./runtime.js";
export { type DecoderFiles, DecoderUnavailable, type Manifest, type Part, checked, fetchFiles, readManifest } from "./weights.js";
