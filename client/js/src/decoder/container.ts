/** The `.cdc` file: header, sections, checksum, as FORMAT.md describes them. */

/** What is wrong with a file: `code` is a name of FORMAT.md, such as "checksum-mismatch". */
export class UnreadableFile extends Error {
  override readonly name = "UnreadableFile";
  constructor(
    readonly code: FileErrorCode,
    detail: string,
  ) {
    super(`${detail} (${code})`);
  }
}

export type FileErrorCode =
  | "not-a-cdc-file"
  | "truncated-file"
  | "malformed-file"
  | "checksum-mismatch"
  | "unsupported-version"
  | "unknown-codec"
  | "corrupt-stream"
  | "too-many-pixels";

/** Header and sections by type. `codecId` is hexadecimal, sides are 1..65535, `rate` is 0..255. */
export interface CdcFile {
  readonly codecId: string;
  readonly width: number;
  readonly height: number;
  readonly rate: number;
  readonly sections: ReadonlyMap<number, Uint8Array>;
}

export const HYPER = 1;
export const LATENT = 2;
export const ALPHA = 3;
export const COLOUR = 4;
export const EXIF = 128;
const OPTIONAL = 128;
const SPACES = [1, 2, 3]; // colour.ts has them
const MAGIC = [0x8f, 0x43, 0x44, 0x43, 0x0d, 0x0a, 0x1a, 0x0a];
const MAX_SIDE = 65535;
const MAX_SECTIONS = 16;
const FIXED_BYTES = 17;

/** A varint at `at`: its value, exact below 2^53 and too large to be used above, and where it ends. */
export function readVarint(data: Uint8Array, at: number, stream = false): [number, number] {
  let value = 0;
  for (let index = 0; index < 9; index++) {
    if (at + index >= data.length) {
      throw new UnreadableFile(stream ? "corrupt-stream" : "truncated-file", "the file ends inside an integer");
    }
    const byte = data[at + index];
    value += (byte & 127) * 2 ** (7 * index);
    if (byte < 128) {
      if (index > 0 && byte === 0) break;
      return [value, at + index + 1];
    }
  }
  throw new UnreadableFile(stream ? "corrupt-stream" : "malformed-file", "an integer is not in its shortest form");
}

/** Parse a whole file and verify its checksum; checks come in the order of FORMAT.md. Throws UnreadableFile. */
export function parse(data: Uint8Array, maxPixels = Infinity): CdcFile {
  const known = MAGIC.findIndex((byte, i) => data[i] !== byte);
  if (known >= 0) {
    if (data.length > 0 && known === data.length) throw new UnreadableFile("truncated-file", "the file ends inside its magic");
    throw new UnreadableFile("not-a-cdc-file", "this is not a .cdc file");
  }
  if (data.length < FIXED_BYTES) throw new UnreadableFile("truncated-file", "the file ends inside its header");
  if (data[8] !== 1) throw new UnreadableFile("unsupported-version", `format version ${data[8]}; this decoder knows 1`);
  const codecId = hex(data.subarray(9, FIXED_BYTES));
  let at = FIXED_BYTES;
  let width: number, height: number;
  [width, at] = readVarint(data, at);
  [height, at] = readVarint(data, at);
  if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE) {
    throw new UnreadableFile("malformed-file", `a side must be 1..${MAX_SIDE} pixels`);
  }
  if (width * height > maxPixels) {
    throw new UnreadableFile("too-many-pixels", `the image has ${width}x${height} pixels; the limit is ${maxPixels}`);
  }
  if (at >= data.length) throw new UnreadableFile("truncated-file", "the file ends inside its header");
  const rate = data[at++];
  const found: [number, Uint8Array][] = [];
  for (;;) {
    if (at >= data.length) throw new UnreadableFile("truncated-file", "the file ends inside its list of sections");
    const type = data[at++];
    if (type === 0) break;
    if (found.length === MAX_SECTIONS) throw new UnreadableFile("malformed-file", `more than ${MAX_SECTIONS} sections`);
    let length: number;
    [length, at] = readVarint(data, at);
    if (length > data.length - at) throw new UnreadableFile("truncated-file", "a section is longer than the rest of the file");
    found.push([type, data.subarray(at, at + length)]);
    at += length;
  }
  if (data.length - at < 4) throw new UnreadableFile("truncated-file", "the file ends before its checksum");
  if (data.length - at > 4) throw new UnreadableFile("malformed-file", "bytes follow the checksum");
  const stored = (data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24)) >>> 0;
  if (stored !== crc32c(data.subarray(0, at))) throw new UnreadableFile("checksum-mismatch", "the file is damaged");
  const sections = new Map(found);
  if (sections.size !== found.length) throw new UnreadableFile("malformed-file", "a section type appears twice");
  for (const type of sections.keys()) {
    if (type < OPTIONAL && type !== HYPER && type !== LATENT && type !== ALPHA && type !== COLOUR) {
      throw new UnreadableFile("unsupported-version", `critical section type ${type} is unknown to this decoder`);
    }
  }
  if (!sections.has(HYPER) || !sections.has(LATENT)) {
    throw new UnreadableFile("malformed-file", "a section with coded data is missing");
  }
  const colour = sections.get(COLOUR);
  if (colour !== undefined) checkSpace(colour);
  return { codecId, width, height, rate, sections };
}

function checkSpace(section: Uint8Array): void {
  if (section.length !== 1) throw new UnreadableFile("malformed-file", "the colour section is not one byte");
  if (!SPACES.includes(section[0])) {
    throw new UnreadableFile("unsupported-version", `colour space ${section[0]} is unknown to this decoder`);
  }
}

const CRC = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let i = 0; i < 8; i++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value;
});

/** CRC-32C (RFC 3720). */
export function crc32c(data: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < data.length; i++) crc = (crc >>> 8) ^ CRC[(crc ^ data[i]) & 255];
  return ~crc >>> 0;
}

/** Bytes in hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
