/** The spaces that a file can name (FORMAT.md, section COLOUR), and their way to sRGB. */

/** The space of decoded pixels, by the names of `ImageData`. */
export type ColorSpace = "srgb" | "display-p3";

export const DISPLAY_P3 = 1;

interface Space {
  /** Linear RGB of the space -> linear sRGB, row by row; white stays white (Bradford). */
  readonly matrix: readonly number[];
  /** Sample value 0..1 -> linear light 0..1. */
  readonly curve: (value: number) => number;
}

const SPACES: Record<number, Space> = {
  1: {
    matrix: [1.22494018, -0.22494018, 0, -0.04205695, 1.04205695, 0, -0.01963755, -0.07863605, 1.0982736],
    curve: (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4),
  },
  2: {
    matrix: [1.39835574, -0.39835574, 0, 0, 1, 0, 0, -0.04292899, 1.04292899],
    curve: (v) => v ** (563 / 256),
  },
  3: {
    matrix: [2.03428916, -0.72750782, -0.30678134, -0.22880199, 1.23172554, -0.00292355, -0.00856228, -0.15326529, 1.16182757],
    curve: (v) => v ** (461 / 256),
  },
};
let encoded: Uint8ClampedArray | undefined;

/** Linear light in 1/65535 -> sample values of sRGB (IEC 61966-2-1). */
function srgb(): Uint8ClampedArray {
  return (encoded ??= Uint8ClampedArray.from({ length: 65536 }, (_, i) => {
    const light = i / 65535;
    return 255 * (light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055);
  }));
}

/** Convert RGBA of a space, 1..3, to sRGB, in place; what sRGB cannot show is clipped. */
export function toSrgb(data: Uint8ClampedArray, space: number): void {
  const { matrix: m, curve } = SPACES[space];
  const light = Float64Array.from({ length: 256 }, (_, i) => 65535 * curve(i / 255));
  const table = srgb();
  const sample = (value: number): number => table[Math.min(Math.max(Math.round(value), 0), 65535)];
  for (let at = 0; at < data.length; at += 4) {
    const [r, g, b] = [light[data[at]], light[data[at + 1]], light[data[at + 2]]];
    data[at] = sample(m[0] * r + m[1] * g + m[2] * b);
    data[at + 1] = sample(m[3] * r + m[4] * g + m[5] * b);
    data[at + 2] = sample(m[6] * r + m[7] * g + m[8] * b);
  }
}
