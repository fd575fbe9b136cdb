/** From a file to pixels: exact integers (latents.ts), then g_s and the sampler by onnxruntime-web. */

import { type ColorSpace, DISPLAY_P3, toSrgb } from "./colour.js";
import { ALPHA, COLOUR, type CdcFile, EXIF, HYPER, LATENT, UnreadableFile, hex, parse } from "./container.js";
import { LatentDecoder, type Latents, readIntegers } from "./latents.js";
import { normalNoise } from "./noise.js";
import { type Graph, type RuntimeOptions, loadGraph } from "./runtime.js";
import { sha256 } from "./sha256.js";
import { type Rectangle, cover, paste, pick } from "./tiles.js";
import type { DecoderFiles, Manifest, Part } from "./weights.js";

const STRIDE = 16;
const MAX_PIXELS = 1 << 24;
const MAX_GAMMA = 2;
const MAX_SEED = 2n ** 63n - 1n;

export interface DecodeOptions {
  /** Denoising steps, 1..8193; of no effect at gamma 0. Default: the model's. */
  readonly steps?: number;
  /** Share of sampled texture, 0..2. Default: the model's. */
  readonly gamma?: number;
  /** Of the noise, 0..2^63-1. Default: the file's own. */
  readonly seed?: bigint;
  /** Files with more pixels are refused before anything is allocated; default 2^24. */
  readonly maxPixels?: number;
  /** Stops the decode between two tiles. */
  readonly signal?: AbortSignal;
  /** Called with the image as it is after the synthesis and after each step but the last. */
  readonly onProgress?: (image: DecodedImage, step: number, steps: number) => void;
}

/** An image. */
export interface DecodedImage {
  readonly width: number;
  readonly height: number;
  /** RGBA, as `ImageData` takes it; opaque. */
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  /** That of `data`: Display P3 stays, Adobe RGB (1998) and ProPhoto RGB become sRGB. */
  readonly colorSpace: ColorSpace;
  /** The alpha plane as a greyscale PNG, where the file has one. */
  readonly alpha: Uint8Array | undefined;
  readonly exif: Uint8Array | undefined;
  /** Milliseconds of entropy decoding and of the networks. */
  readonly times: { readonly entropy: number; readonly networks: number };
}

/** Maps [channels, height, width]. */
interface Maps {
  readonly data: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** Decodes the files of one codec id; networks are fetched when they are first needed. */
export class Decoder {
  private readonly graphs = new Map<Part, Promise<Graph>>();

  private constructor(
    private readonly files: DecoderFiles,
    private readonly latents: LatentDecoder,
    private readonly options: RuntimeOptions,
  ) {}

  /** Fetch the integers of the codec id. Throws DecoderUnavailable. */
  static async load(files: DecoderFiles, options: RuntimeOptions = {}): Promise<Decoder> {
    return new Decoder(files, new LatentDecoder(readIntegers(await files.read("integers"))), options);
  }

  private get manifest(): Manifest {
    return this.files.manifest;
  }

  /** Fetch a network ahead of the first decode; "denoiser" is needed for gamma above 0 alone. */
  async prepare(part: "synthesis" | "denoiser" = "synthesis"): Promise<void> {
    await this.graph(part);
  }

  /** SHA-256 over the symbols of a file (FORMAT.md, "The symbols' hash"). Throws UnreadableFile. */
  symbols(data: Uint8Array, maxPixels = MAX_PIXELS): string {
    const { z, y } = this.read(parse(data, maxPixels));
    return hex(sha256(new Uint8Array(z.buffer), new Uint8Array(y.buffer)));
  }

  /** Decode a file. Throws UnreadableFile, DecoderUnavailable, RangeError for an option, the signal's reason. */
  async decode(data: Uint8Array, options: DecodeOptions = {}): Promise<DecodedImage> {
    const steps = options.steps ?? this.manifest.default_steps;
    const gamma = options.gamma ?? this.manifest.default_gamma;
    const { length } = this.manifest.schedule;
    if (!(Number.isInteger(steps) && steps >= 1 && steps <= length)) throw new RangeError(`steps must be 1..${length}`);
    if (!(gamma >= 0 && gamma <= MAX_GAMMA)) throw new RangeError(`gamma must be 0..${MAX_GAMMA}`);
    if (options.seed !== undefined && (options.seed < 0n || options.seed > MAX_SEED)) {
      throw new RangeError("seed must be 0..2^63-1");
    }
    const start = performance.now();
    const file = parse(data, options.maxPixels ?? MAX_PIXELS);
    const latents = this.read(file);
    const entropy = performance.now() - start;
    const image = (x: Maps): DecodedImage => ({
      width: file.width,
      height: file.height,
      ...toPixels(x, file),
      alpha: file.sections.get(ALPHA),
      exif: file.sections.get(EXIF),
      times: { entropy, networks: performance.now() - start - entropy },
    });
    const { base, context } = await this.synthesise(file, latents, gamma > 0, options.signal);
    if (gamma === 0 || context === undefined) return image(base);
    options.onProgress?.(image(base), 0, steps);
    const q = file.rate / 255;
    const share = gamma * residualSize(this.manifest.log_residual, q);
    const sampled = (v: Float32Array): Maps => ({ ...base, data: base.data.map((value, i) => value + share * v[i]) });
    let x: Float32Array = normalNoise(options.seed ?? seedOf(file), base.height, base.width);
    for (const [step, level] of this.levels(steps).entries()) {
      const x0 = await this.denoise({ ...base, data: x }, context, level.time, q, options.signal);
      x = ddim(x, x0, level.from, level.to);
      if (step < steps - 1) options.onProgress?.(image(sampled(x0)), step + 1, steps);
    }
    return image(sampled(x));
  }

  private read(file: CdcFile): Latents {
    if (file.codecId !== this.manifest.codec_id) {
      const known = this.manifest.codec_id;
      throw new UnreadableFile("unknown-codec", `codec id ${file.codecId}; this decoder decodes ${known}`);
    }
    return this.latents.decode(file);
  }

  /** The image of least error on its canvas, and the denoiser's context at 1/8. */
  private async synthesise(
    file: CdcFile,
    latents: Latents,
    keepContext: boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ base: Maps; context: Maps | undefined }> {
    const [height, width] = [this.canvasSide(file.height), this.canvasSide(file.width)];
    const extend = (value: (i: number) => number): Maps => extended(latents, height / STRIDE, width / STRIDE, value);
    const feeds = {
      y_hat: extend((i) => latents.y[i] + latents.means[i] / 16),
      mean: extend((i) => latents.means[i] / 16),
      index: extend((i) => latents.indices[i]),
    };
    const q = { data: Float32Array.of(file.rate / 255), shape: [1] };
    const base: Maps = { data: new Float32Array(3 * height * width), channels: 3, height, width };
    let context: Maps | undefined;
    const graph = await this.graph("synthesis");
    for (const tile of cover(height, width, this.manifest.tile, this.manifest.margin)) {
      signal?.throwIfAborted();
      const windows = Object.entries(feeds).map(([name, maps]) => [name, cut(maps, tile.window, STRIDE)]);
      const inputs = { ...(Object.fromEntries(windows) as Record<keyof typeof feeds, Feed>), q };
      const outputs = await graph.run(inputs, keepContext ? ["base", "context"] : ["base"]);
      paste(base, outputs[0].data, tile, 1);
      if (keepContext) {
        const channels = outputs[1].shape[1];
        const sides = { channels, height: height / 8, width: width / 8 };
        context ??= { data: new Float32Array(channels * sides.height * sides.width), ...sides };
        paste(context, outputs[1].data, tile, 8);
      }
    }
    return { base, context };
  }

  private async denoise(x: Maps, context: Maps, time: number, q: number, signal: AbortSignal | undefined): Promise<Float32Array> {
    const graph = await this.graph("denoiser");
    const out: Maps = { ...x, data: new Float32Array(x.data.length) };
    for (const tile of cover(x.height, x.width, this.manifest.tile, this.manifest.margin)) {
      signal?.throwIfAborted();
      const scalars = { t: { data: Float32Array.of(time), shape: [1] }, q: { data: Float32Array.of(q), shape: [1] } };
      const inputs = { x: cut(x, tile.window, 1), context: cut(context, tile.window, 8), ...scalars };
      paste(out, (await graph.run(inputs, ["x0"]))[0].data, tile, 1);
    }
    return out.data;
  }

  /** Noise levels of a decode (DDIM, Song et al. 2021), noisiest first: alpha_bar from and to, and the time. */
  private levels(steps: number): { from: number; to: number; time: number }[] {
    const { length, shift, floor } = this.manifest.schedule;
    const f = (u: number): number => Math.cos((((u + shift) / (1 + shift)) * Math.PI) / 2) ** 2;
    const alpha = (index: number): number => Math.fround(Math.max(f((index + 1) / length) / f(0), floor));
    const last = length - 1;
    const indices = Array.from({ length: steps }, (_, i) => {
      return steps === 1 ? last : Math.floor(((steps - 1 - i) * last) / (steps - 1));
    });
    return indices.map((index, i) => ({
      from: alpha(index),
      to: i + 1 < steps ? alpha(indices[i + 1]) : 1,
      time: (index + 1) / length,
    }));
  }

  private canvasSide(side: number): number {
    return this.manifest.sides.find((known) => known >= side) ?? Math.ceil(side / 64) * 64;
  }

  private graph(part: "synthesis" | "denoiser"): Promise<Graph> {
    let found = this.graphs.get(part);
    if (found === undefined) {
      found = this.files.read(part).then((model) => loadGraph(model, this.options));
      this.graphs.set(part, found);
      found.catch(() => this.graphs.delete(part)); // the next decode tries again
    }
    return found;
  }
}

interface Feed {
  data: Float32Array;
  shape: number[];
}

function cut(maps: Maps, window: Rectangle, stride: number): Feed {
  const made = pick(maps, window, stride);
  return { data: made.data, shape: [1, made.channels, made.height, made.width] };
}

/** Maps of the latents' shape, extended by their last row and column. */
function extended(latents: Latents, height: number, width: number, value: (i: number) => number): Maps {
  const { channels, height: h, width: w } = latents;
  const data = new Float32Array(channels * height * width);
  let at = 0;
  for (let c = 0; c < channels; c++) {
    for (let row = 0; row < height; row++) {
      const line = (c * h + Math.min(row, h - 1)) * w;
      for (let column = 0; column < width; column++) data[at++] = value(line + Math.min(column, w - 1));
    }
  }
  return { data, channels, height, width };
}

function ddim(x: Float32Array, x0: Float32Array, from: number, to: number): Float32Array {
  const [a, b, c, d] = [Math.sqrt(from), Math.sqrt(1 - from), Math.sqrt(to), Math.sqrt(1 - to)];
  return x.map((value, i) => c * x0[i] + (d * (value - a * x0[i])) / b);
}

/** The standard deviation of the residual at a rate, from its logarithms at equally spaced rates. */
function residualSize(table: readonly number[], q: number): number {
  const position = q * (table.length - 1);
  const low = Math.min(Math.floor(position), table.length - 2);
  return Math.exp(table[low] + (table[low + 1] - table[low]) * (position - low));
}

/** The first 8 bytes of the SHA-256 over the streams, little-endian, less the top bit. */
function seedOf(file: CdcFile): bigint {
  const digest = sha256(file.sections.get(HYPER) as Uint8Array, file.sections.get(LATENT) as Uint8Array);
  return new DataView(digest.buffer).getBigUint64(0, true) & MAX_SEED;
}

/** Maps in [-1, 1] -> RGBA, cropped; halves are rounded to even. */
function toPixels(x: Maps, file: CdcFile): Pick<DecodedImage, "data" | "colorSpace"> {
  const { width, height } = file;
  const out = new Uint8ClampedArray(4 * width * height).fill(255); // rounds halves to even, and clamps
  const plane = x.height * x.width;
  for (let row = 0, at = 0; row < height; row++) {
    for (let from = row * x.width, end = from + width; from < end; from++, at += 4) {
      out[at] = Math.fround(x.data[from] * 127.5 + 127.5);
      out[at + 1] = Math.fround(x.data[plane + from] * 127.5 + 127.5);
      out[at + 2] = Math.fround(x.data[2 * plane + from] * 127.5 + 127.5);
    }
  }
  const space = file.sections.get(COLOUR)?.[0];
  if (space === DISPLAY_P3) return { data: out, colorSpace: "display-p3" };
  if (space !== undefined) toSrgb(out, space);
  return { data: out, colorSpace: "srgb" };
}
