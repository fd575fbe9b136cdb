// A worker: how far a picture is from the reference. PSNR over red, green and blue; MS-SSIM (Wang et al. 2003) of luma.

const WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]; // of the scales, finest first
const TAPS = gaussian(11, 1.5);
const C1 = (0.01 * 255) ** 2;
const C2 = (0.03 * 255) ** 2;
const LEAST_SIDE = (TAPS.length - 1) * 16 + 1; // below it the coarsest scale holds no window

function gaussian(count, sigma) {
  const taps = Array.from({ length: count }, (_, i) => Math.exp(-((i - (count - 1) / 2) ** 2) / (2 * sigma * sigma)));
  const sum = taps.reduce((a, b) => a + b);
  return taps.map((tap) => tap / sum);
}

/** @param {Uint8ClampedArray} one RGBA @param {Uint8ClampedArray} other @returns {number} dB; Infinity if they are equal */
export function psnr(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i += 4) {
    sum += (one[i] - other[i]) ** 2 + (one[i + 1] - other[i + 1]) ** 2 + (one[i + 2] - other[i + 2]) ** 2;
  }
  return 10 * Math.log10((255 * 255 * 3 * (one.length / 4)) / sum);
}

/** Luma (BT.601) of RGBA pixels, 0..255. */
export function luma(rgba) {
  const plane = new Float32Array(rgba.length / 4);
  for (let i = 0; i < plane.length; i++) {
    plane[i] = 0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2];
  }
  return plane;
}

/** MS-SSIM of two planes, 0..1; null where a side is too small for its five scales. */
export function msSsim(one, other, width, height) {
  if (Math.min(width, height) < LEAST_SIDE) return null;
  let product = 1;
  for (let scale = 0; ; scale++) {
    const [similarity, contrast] = ssim(one, other, width, height);
    const last = scale === WEIGHTS.length - 1;
    product *= Math.max(0, last ? similarity : contrast) ** WEIGHTS[scale];
    if (last) return product;
    [one, other] = [halve(one, width, height), halve(other, width, height)];
    [width, height] = [width >> 1, height >> 1];
  }
}

function halve(plane, width, height) {
  const [w, h] = [width >> 1, height >> 1];
  const out = new Float32Array(w * h);
  for (let y = 0; y < h; y++) {
    for (let x = 0, at = 2 * y * width; x < w; x++, at += 2) {
      out[y * w + x] = (plane[at] + plane[at + 1] + plane[at + width] + plane[at + width + 1]) / 4;
    }
  }
  return out;
}

/** Means over all windows of SSIM and of its contrast term; rows are filtered once each and kept as long as needed. */
function ssim(one, other, width, height) {
  const size = TAPS.length;
  const columns = width - size + 1;
  const rows = Array.from({ length: size }, () => Array.from({ length: 5 }, () => new Float32Array(columns)));
  let similarity = 0;
  let contrast = 0;
  for (let y = 0; y < height; y++) {
    filterRow(one.subarray(y * width, (y + 1) * width), other.subarray(y * width, (y + 1) * width), rows[y % size]);
    if (y < size - 1) continue;
    for (let x = 0; x < columns; x++) {
      let [a, b, aa, bb, ab] = [0, 0, 0, 0, 0];
      for (let k = 0; k < size; k++) {
        const row = rows[(y + 1 + k) % size];
        const tap = TAPS[k];
        a += tap * row[0][x];
        b += tap * row[1][x];
        aa += tap * row[2][x];
        bb += tap * row[3][x];
        ab += tap * row[4][x];
      }
      const cs = (2 * (ab - a * b) + C2) / (aa - a * a + bb - b * b + C2);
      contrast += cs;
      similarity += (cs * (2 * a * b + C1)) / (a * a + b * b + C1);
    }
  }
  const windows = columns * (height - size + 1);
  return [similarity / windows, contrast / windows];
}

function filterRow(a, b, [ma, mb, maa, mbb, mab]) {
  for (let x = 0; x < ma.length; x++) {
    let [sa, sb, saa, sbb, sab] = [0, 0, 0, 0, 0];
    for (let k = 0; k < TAPS.length; k++) {
      const [p, q, tap] = [a[x + k], b[x + k], TAPS[k]];
      sa += tap * p;
      sb += tap * q;
      saa += tap * p * p;
      sbb += tap * q * q;
      sab += tap * p * q;
    }
    ma[x] = sa;
    mb[x] = sb;
    maa[x] = saa;
    mbb[x] = sbb;
    mab[x] = sab;
  }
}

let reference = null; // {width, height, rgba, plane}

if (typeof WorkerGlobalScope !== "undefined") {
  addEventListener("message", ({ data: { id, width, height, pixels, isReference } }) => {
    const rgba = new Uint8ClampedArray(pixels);
    if (isReference) {
      reference = { width, height, rgba, plane: luma(rgba) };
      return;
    }
    postMessage({ id, psnr: psnr(reference.rgba, rgba), msssim: msSsim(reference.plane, luma(rgba), width, height) });
  });
}
