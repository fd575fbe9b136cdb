// Pixels: reading files, the JPEG of a given size, the distance between two pictures.

const MAGIC = [0x8f, 0x43, 0x44, 0x43, 0x0d, 0x0a, 0x1a, 0x0a]; // of a .cdc file
// What the canvases of all browsers hold.
const MAX_SIDE = 16384;
const MAX_PIXELS = 1 << 26;
const STRIPE_PIXELS = 1 << 20; // read at a time, so that the page stays alive

/** True for a .cdc file, told by its first bytes or, damaged, by its name. */
export async function isCdc(file) {
  const head = new Uint8Array(await file.slice(0, MAGIC.length).arrayBuffer());
  return MAGIC.every((byte, i) => head[i] === byte) || /\.cdc$/i.test(file.name ?? "");
}

/** Draw a picture file on a canvas, over white, turned as its EXIF says. @returns {Promise<boolean>} could it be read? */
export async function drawFile(file, canvas) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return false;
  }
  const { width, height } = bitmap;
  const drawable = Math.max(width, height) <= MAX_SIDE && width * height <= MAX_PIXELS;
  if (drawable) {
    resize(canvas, width, height);
    draw(canvas, bitmap);
  }
  bitmap.close();
  return drawable;
}

/** Draw an image over the whole canvas. */
export function draw(canvas, image) {
  const context = canvas.getContext("2d", { alpha: false });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
}

/** Set the size of a canvas and empty it. */
export function resize(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
}

/** Peak signal-to-noise ratio over red, green and blue of two canvases of equal size, in dB; Infinity if they are equal. */
export async function psnr(one, other) {
  const { width, height } = one;
  const rows = Math.min(height, Math.max(1, Math.floor(STRIPE_PIXELS / width)));
  // Read from a copy in main memory: the pictures themselves may stay with the graphics card.
  const copy = Object.assign(document.createElement("canvas"), { width, height: rows });
  const context = copy.getContext("2d", { alpha: false, willReadFrequently: true });
  const read = (canvas, top, count) => {
    context.drawImage(canvas, 0, top, width, count, 0, 0, width, count);
    return context.getImageData(0, 0, width, count).data;
  };
  let sum = 0;
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    const p = read(one, top, count);
    const q = read(other, top, count);
    for (let i = 0; i < p.length; i += 4) {
      sum += (p[i] - q[i]) ** 2 + (p[i + 1] - q[i + 1]) ** 2 + (p[i + 2] - q[i + 2]) ** 2;
    }
    await new Promise((resolve) => setTimeout(resolve));
  }
  return 10 * Math.log10((255 * 255 * 3 * width * height) / sum);
}

/**
 * The best JPEG of at most `bytes` bytes that the browser makes.
 *
 * @returns {Promise<{blob: Blob, quality: number, fits: boolean}>} quality 0..100; where even 0 is larger, that one
 */
export async function jpegWithin(canvas, bytes) {
  let low = 0;
  let high = 100;
  let best = null;
  while (low <= high) {
    const quality = Math.floor((low + high) / 2);
    const blob = await jpeg(canvas, quality);
    if (blob.size <= bytes) {
      best = { blob, quality, fits: true };
      low = quality + 1;
    } else {
      high = quality - 1;
    }
  }
  return best ?? { blob: await jpeg(canvas, 0), quality: 0, fits: false };
}

function jpeg(canvas, quality) {
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Error("the browser made no JPEG")));
    canvas.toBlob(done, "image/jpeg", quality / 100);
  });
}

/** The bytes of base64 text as a Blob. */
export function blobOf(base64, type) {
  if (Uint8Array.fromBase64) return new Blob([Uint8Array.fromBase64(base64)], { type });
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type });
}
