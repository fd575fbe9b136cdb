/**
 * Hyper-decoder and context model in exact integers, as FORMAT.md describes them: streams to symbols, means, indices.
 * All sums are integers below 2^53, which doubles hold, whatever the order of summation.
 */

import { type CdcFile, HYPER, LATENT, UnreadableFile } from "./container.js";
import { Columns, multiply } from "./matrix.js";
import { Stream, Tables } from "./streams.js";

const ACTIVATION_LIMIT = 2 ** 24 - 1;
const FINE_LIMIT = 2 ** 24;
const OUTPUT_LIMIT = 2 ** 20;
const Z_LIMIT = 2 ** 17;
const STRIP = 512; // positions that a context network sees at a time: bounds the memory of its windows

/** Symbols of z [C, h/4, w/4] and y [M, h, w]; means of y in 1/16 and scale indices, likewise. */
export interface Latents {
  readonly z: Int32Array;
  readonly y: Int32Array;
  readonly means: Int32Array;
  readonly indices: Uint8Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

export type Integers = ReadonlyMap<string, Int16Array | Int32Array | Float64Array>;

/** The integer tensors of a safetensors file, by the names of FORMAT.md; 64-bit ones as exact doubles. */
export function readIntegers(data: Uint8Array): Integers {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const start = 8 + view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(data.subarray(8, start))) as Record<
    string,
    { dtype: string; data_offsets: [number, number] }
  >;
  const found = new Map<string, Int16Array | Int32Array | Float64Array>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = Uint8Array.from(data.subarray(start + entry.data_offsets[0], start + entry.data_offsets[1])).buffer; // aligned
    const key = name.replace(/^entropy\./, "");
    if (entry.dtype === "I16") found.set(key, new Int16Array(bytes));
    else if (entry.dtype === "I32") found.set(key, new Int32Array(bytes));
    else {
      const wide = new DataView(bytes);
      const values = Float64Array.from({ length: bytes.byteLength / 8 }, (_, i) => {
        return wide.getInt32(8 * i + 4, true) * 2 ** 32 + wide.getUint32(8 * i, true);
      });
      found.set(key, values);
    }
  }
  return found;
}

/** A layer: kernel [out, in] in doubles, bias with its half, 2^-shift, clamp. */
class Layer {
  readonly outputs: number;
  private readonly offset: Float64Array;
  private readonly scale: Float64Array;

  constructor(
    readonly kernel: Float64Array,
    bias: Float64Array,
    shift: Float64Array,
    private readonly low: number,
    private readonly high: number,
  ) {
    this.outputs = bias.length;
    this.offset = bias.map((value, i) => value + (shift[i] > 0 ? 2 ** (shift[i] - 1) : 0));
    this.scale = shift.map((value) => 2 ** -value);
  }

  /** Sums [out, n] -> floor((v + bias + half) 2^-shift), clamped, in place. */
  rescale(sums: Float64Array, n: number): Float64Array {
    for (let o = 0; o < this.outputs; o++) {
      const offset = this.offset[o];
      const scale = this.scale[o];
      for (let i = o * n, end = i + n; i < end; i++) {
        const v = Math.floor((sums[i] + offset) * scale);
        sums[i] = v < this.low ? this.low : v > this.high ? this.high : v;
      }
    }
    return sums;
  }

  /** Columns [in, n] -> [out, n]. */
  apply(columns: Float64Array, n: number): Float64Array {
    const packed = Columns.of(columns, this.kernel.length / this.outputs, n);
    return this.rescale(multiply(this.kernel, packed, this.outputs), n);
  }
}

/** The integers of one codec id, ready to decode. Holds no state of any file. */
export class LatentDecoder {
  readonly channels: number;
  private readonly hyper: Tables;
  private readonly latent: Tables;
  private readonly medians: Int32Array;
  private readonly gain: Int32Array;
  private readonly groups: Int32Array;
  private readonly silent: number;
  private readonly up: { layer: Layer; inputs: number }[];
  private readonly last: Layer;
  private readonly nets: [Layer, Layer, Layer][];

  constructor(integers: Integers) {
    const ints = (name: string): Int32Array => integers.get(name) as Int32Array;
    const layer = (name: string, low: number, high: number, kernel?: Float64Array): Layer => {
      const stored = integers.get(`${name}.kernel`) as Int16Array;
      const [bias, shift] = ["bias", "shift"].map((part) => integers.get(`${name}.${part}`) as Float64Array);
      return new Layer(kernel ?? Float64Array.from(stored), bias, shift, low, high);
    };
    const tables = (name: string): Tables => new Tables(ints(`${name}.lowest`), ints(`${name}.sizes`), ints(`${name}.counts`));
    [this.hyper, this.latent] = [tables("hyper"), tables("latent")];
    this.medians = ints("medians");
    this.gain = ints("gain_to_index");
    this.groups = ints("context.groups");
    this.silent = integers.has("silent") ? ints("silent")[0] : 0;
    this.channels = this.groups.reduce((a, b) => a + b, 0);
    let inputs = this.medians.length;
    this.up = ["head.0", "head.1"].map((name) => {
      const stored = integers.get(`${name}.kernel`) as Int16Array;
      const outputs = stored.length / (25 * inputs);
      const made = { layer: layer(name, 0, ACTIVATION_LIMIT, byTap(stored, inputs, outputs)), inputs };
      inputs = outputs;
      return made;
    });
    this.last = layer("head.2", -FINE_LIMIT, FINE_LIMIT);
    this.nets = Array.from({ length: 2 * this.groups.length - 1 }, (_, k) => [
      layer(`context.${k}.0`, 0, ACTIVATION_LIMIT),
      layer(`context.${k}.1`, 0, ACTIVATION_LIMIT),
      layer(`context.${k}.2`, -FINE_LIMIT, FINE_LIMIT),
    ]);
  }

  /** The symbols of a file and what its prior knew. Throws UnreadableFile, "corrupt-stream". */
  decode(file: CdcFile): Latents {
    const [rows, columns] = [Math.ceil(file.height / 64), Math.ceil(file.width / 64)];
    const places = rows * columns;
    const z = new Int32Array(this.medians.length * places);
    const stream = new Stream(section(file, HYPER), this.hyper);
    stream.part(Uint16Array.from(z, (_, i) => Math.floor(i / places)), z);
    stream.finish();
    let x: Float64Array = Float64Array.from(z, (symbol, i) => {
      return Math.max(-Z_LIMIT, Math.min(Z_LIMIT, 256 * symbol + this.medians[Math.floor(i / places)]));
    });
    let [h, w] = [rows, columns];
    for (const { layer, inputs } of this.up) {
      x = transposed(layer, inputs, x, h, w);
      [h, w] = [2 * h, 2 * w];
    }
    return { z, ...this.decodeLatent(file, x, h, w) };
  }

  private decodeLatent(file: CdcFile, features: Float64Array, h: number, w: number): Omit<Latents, "z"> {
    const n = h * w;
    const { channels } = this;
    const base = this.last.apply(features, n); // means, then scale numbers
    const hidden = features.length / n;
    const seen = new Float64Array((hidden + 1) * n);
    for (let i = 0; i < features.length; i++) seen[i] = Math.floor((features[i] + 8) / 16);
    seen.fill(file.rate + (file.rate >= 128 ? 1 : 0), features.length);
    const y = new Int32Array(channels * n);
    const means = new Int32Array(channels * n);
    const indices = new Uint8Array(channels * n);
    const known = new Float64Array(channels * (h + 2) * (w + 2)); // with a border of zeros
    const live = new Uint8Array(channels); // channels that are not all zero
    const stream = new Stream(section(file, LATENT), this.latent);
    let start = 0;
    for (let number = 0; number < 2 * this.groups.length; number++) {
      const size = this.groups[number >> 1];
      const parity = number & 1;
      const here = positions(h, w, parity);
      const m = here.length;
      const correction = number > 0 ? this.correct(number - 1, start + parity * size, known, live, seen, here, h, w) : null;
      const mean = new Int32Array(size * m);
      const index = new Uint8Array(size * m);
      const coded: number[] = [];
      const groups: number[] = [];
      for (let c = 0; c < size; c++) {
        const gain = this.gain[file.rate * channels + start + c];
        for (let i = 0; i < m; i++) {
          const place = (start + c) * n + here[i];
          let fine = base[place];
          let scale = base[channels * n + place];
          if (correction !== null) {
            fine += correction[c * m + i];
            scale += correction[(size + c) * m + i];
          }
          const at = c * m + i;
          mean[at] = Math.max(-OUTPUT_LIMIT, Math.min(OUTPUT_LIMIT, Math.floor((fine + 8) / 16)));
          index[at] = Math.max(0, Math.min(63, Math.floor((scale + gain + 128) / 256)));
          if (index[at] >= this.silent) {
            coded.push(at);
            groups.push(index[at]);
          }
        }
      }
      const symbols = new Int32Array(coded.length);
      stream.part(Uint8Array.from(groups), symbols);
      const values = new Int32Array(size * m);
      for (let i = 0; i < coded.length; i++) values[coded[i]] = symbols[i];
      for (let c = 0; c < size; c++) {
        const channel = start + c;
        for (let i = 0; i < m; i++) {
          const at = c * m + i;
          const place = channel * n + here[i];
          y[place] = values[at];
          means[place] = mean[at];
          indices[place] = index[at];
          const entered = 4 * (16 * values[at] + mean[at]);
          if (entered === 0) continue;
          live[channel] = 1;
          const row = Math.floor(here[i] / w);
          known[(channel * (h + 2) + row + 1) * (w + 2) + (here[i] - row * w) + 1] = Math.max(
            -ACTIVATION_LIMIT,
            Math.min(ACTIVATION_LIMIT, entered),
          );
        }
      }
      start += parity * size;
    }
    stream.finish();
    return { y, means, indices, channels, height: h, width: w };
  }

  /** What a pass adds to means and scale numbers, [2 m, positions]. Channels that are all zero are left out. */
  private correct(
    net: number,
    knownChannels: number,
    known: Float64Array,
    live: Uint8Array,
    seen: Float64Array,
    here: Int32Array,
    h: number,
    w: number,
  ): Float64Array {
    const [first, second, third] = this.nets[net];
    const n = h * w;
    const depth = seen.length / n;
    const stride = first.kernel.length / first.outputs;
    const channels: number[] = [];
    for (let c = 0; c < knownChannels; c++) if (live[c]) channels.push(c);
    const rowsIn = 9 * channels.length + depth;
    const kernel = new Float64Array(first.outputs * rowsIn);
    for (let o = 0; o < first.outputs; o++) {
      let at = o * rowsIn;
      for (const c of channels) for (let tap = 0; tap < 9; tap++) kernel[at++] = first.kernel[o * stride + 9 * c + tap];
      for (let d = 0; d < depth; d++) kernel[at++] = first.kernel[o * stride + 9 * knownChannels + d];
    }
    const out = new Float64Array(third.outputs * here.length);
    for (let from = 0; from < here.length; from += STRIP) {
      const m = Math.min(STRIP, here.length - from);
      const columns = new Columns(rowsIn, m);
      for (let i = 0; i < m; i++) {
        const place = here[from + i];
        const line = Math.floor(place / w);
        const corner = line * (w + 2) + place - line * w;
        let at = (i >> 2) * 4 * rowsIn + (i & 3);
        for (const c of channels) {
          for (let down = 0, tap = c * (h + 2) * (w + 2) + corner; down < 3; down++, tap += w + 2, at += 12) {
            columns.data[at] = known[tap];
            columns.data[at + 4] = known[tap + 1];
            columns.data[at + 8] = known[tap + 2];
          }
        }
        for (let d = 0; d < depth; d++, at += 4) columns.data[at] = seen[d * n + place];
      }
      const sums = multiply(kernel, columns, first.outputs);
      const made = third.apply(second.apply(first.rescale(sums, m), m), m);
      for (let o = 0; o < third.outputs; o++) out.set(made.subarray(o * m, (o + 1) * m), o * here.length + from);
    }
    return out;
  }
}

function section(file: CdcFile, type: number): Uint8Array {
  const data = file.sections.get(type);
  if (data === undefined) throw new UnreadableFile("malformed-file", "a section with coded data is missing");
  return data;
}

/** Places whose row + column has that parity, in raster order. */
function positions(h: number, w: number, parity: number): Int32Array {
  const found = new Int32Array((h * w) / 2);
  let at = 0;
  for (let row = 0; row < h; row++) {
    for (let column = (row + parity) % 2; column < w; column += 2) found[at++] = row * w + column;
  }
  return found;
}

/** Kernel [in, out, 5, 5] -> [25, out, in]. */
function byTap(kernel: Int16Array, inputs: number, outputs: number): Float64Array {
  const out = new Float64Array(kernel.length);
  for (let i = 0; i < inputs; i++) {
    for (let o = 0; o < outputs; o++) {
      for (let tap = 0; tap < 25; tap++) out[(tap * outputs + o) * inputs + i] = kernel[(i * outputs + o) * 25 + tap];
    }
  }
  return out;
}

/** Transposed 5x5 convolution of stride 2, padding 2, output padding 1, ReLU: [in, h, w] -> [out, 2h, 2w]. */
function transposed(layer: Layer, inputs: number, x: Float64Array, h: number, w: number): Float64Array {
  const { outputs } = layer;
  const [rows, columns] = [2 * h, 2 * w];
  const sums = new Float64Array(outputs * rows * columns);
  const packed = Columns.of(x, inputs, h * w);
  for (let tap = 0; tap < 25; tap++) {
    const [k, j] = [Math.floor(tap / 5) - 2, (tap % 5) - 2]; // input (i, l) adds to output (2 i + k, 2 l + j)
    const kernel = layer.kernel.subarray(tap * outputs * inputs, (tap + 1) * outputs * inputs);
    const taps = multiply(kernel, packed, outputs);
    for (let o = 0; o < outputs; o++) {
      for (let i = Math.max(0, Math.ceil(-k / 2)); i < h && 2 * i + k < rows; i++) {
        const line = (o * rows + 2 * i + k) * columns + j;
        for (let l = Math.max(0, Math.ceil(-j / 2)); l < w && 2 * l + j < columns; l++) {
          sums[line + 2 * l] += taps[(o * h + i) * w + l];
        }
      }
    }
  }
  return layer.rescale(sums, rows * columns);
}
