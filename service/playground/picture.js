// Pixels: reading files, drawing, the difference of two pictures.

const MAGIC = [0x8f, 0x43, 0x44, 0x43, 0x0d, 0x0a, 0x1a, 0x0a]; // of a .cdc file
// What the canvases of all browsers hold.
const MAX_SIDE = 16384;
const MAX_PIXELS = 1 << 26;

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

/** Draw how far two canvases of one size are apart, eight times as strong, on a third. */
export function drawDifference(one, other, target) {
  resize(target, one.width, one.height);
  const context = target.getContext("2d", { alpha: false });
  context.drawImage(one, 0, 0);
  context.globalCompositeOperation = "difference";
  context.drawImage(other, 0, 0);
  context.globalCompositeOperation = "lighter"; // adds: three times the picture to itself is eight times the picture
  for (let i = 0; i < 3; i++) context.drawImage(target, 0, 0);
  context.globalCompositeOperation = "source-over";
}

/** The bytes of base64 text as a Blob. */
export function blobOf(base64, type) {
  if (Uint8Array.fromBase64) return new Blob([Uint8Array.fromBase64(base64)], { type });
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type });
}
