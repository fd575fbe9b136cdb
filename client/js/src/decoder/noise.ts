/**
 * Start noise as a function of seed and position: Philox 4x64 (Salmon et al. 2011) and Box-Muller. A 64-bit integer is
 * a pair of 32-bit halves.
 */

const M0 = [0xd2e7470e, 0xe14c6c93];
const M1 = [0xca5a8263, 0x95121157];
const W0 = [0x9e3779b9, 0x7f4a7c15];
const W1 = [0xbb67ae85, 0x84caa73b];
const ROUNDS = 10;
const WORD = 2 ** 32;

let high = 0; // of the last product
let low = 0;

/** 32 x 32 -> 64 bits, into `high` and `low`. */
function product(a: number, b: number): void {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const least = aLow * bLow;
  const middle = aLow * bHigh + aHigh * bLow + Math.floor(least / 65536);
  low = ((middle % 65536) * 65536 + (least & 0xffff)) >>> 0;
  high = aHigh * bHigh + Math.floor(middle / 65536);
}

const made = new Uint32Array(4); // of the last wide product, most significant half first

/** 64 x 64 -> 128 bits, into `made`. */
function wideProduct(m: number[], xHigh: number, xLow: number): void {
  product(m[1], xLow);
  const last = low;
  let carry = high;
  product(m[1], xHigh);
  let third = carry + low;
  let second = high;
  product(m[0], xLow);
  third += low;
  second += high;
  carry = Math.floor(third / WORD);
  product(m[0], xHigh);
  second += low + carry;
  made[3] = last;
  made[2] = third - carry * WORD;
  carry = Math.floor(second / WORD);
  made[1] = second - carry * WORD;
  made[0] = high + carry;
}

/** Block `counter` of row `row`: four 64-bit words, most significant halves first. */
function philox(counter: number, row: number, key: readonly [number, number], out: Uint32Array): void {
  let [aH, aL, bH, bL, cH, cL, dH, dL] = [0, counter, 0, row, 0, 0, 0, 0];
  let [k0H, k0L, k1H, k1L] = [key[0], key[1], 0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    wideProduct(M0, aH, aL);
    const [p0, p1, p2, p3] = made;
    wideProduct(M1, cH, cL);
    aH = (made[0] ^ bH ^ k0H) >>> 0;
    aL = (made[1] ^ bL ^ k0L) >>> 0;
    bH = made[2];
    bL = made[3];
    cH = (p0 ^ dH ^ k1H) >>> 0;
    cL = (p1 ^ dL ^ k1L) >>> 0;
    dH = p2;
    dL = p3;
    let sum = k0L + W0[1];
    k0H = (k0H + W0[0] + (sum >= WORD ? 1 : 0)) >>> 0;
    k0L = sum >>> 0;
    sum = k1L + W1[1];
    k1H = (k1H + W1[0] + (sum >= WORD ? 1 : 0)) >>> 0;
    k1L = sum >>> 0;
  }
  out.set([aH, aL, bH, bL, cH, cL, dH, dL]);
}

/** Standard normal noise [3, height, width]; `seed` is 0..2^63-1. */
export function normalNoise(seed: bigint, height: number, width: number): Float32Array {
  const out = new Float32Array(3 * height * width);
  const key: [number, number] = [Number(seed >> 32n), Number(seed & 0xffffffffn)];
  const words = new Uint32Array(8);
  const plane = height * width;
  for (let row = 0; row < height; row++) {
    for (let pair = 0; 2 * pair < width; pair++) {
      philox(pair + 1, row, key, words);
      for (let i = 0; i < 2 && 2 * pair + i < width; i++) {
        const at = row * width + 2 * pair + i;
        const first = Math.sqrt(-2 * Math.log((words[4 * i] + 1) / WORD));
        const angle = (words[4 * i + 1] * 2 * Math.PI) / WORD;
        out[at] = first * Math.cos(angle);
        const second = Math.sqrt(-2 * Math.log((words[4 * i + 2] + 1) / WORD));
        out[plane + at] = second * Math.cos((words[4 * i + 3] * 2 * Math.PI) / WORD);
        out[2 * plane + at] = first * Math.sin(angle);
      }
    }
  }
  return out;
}
