// How long it will take, and what to do about a large photograph: said before anything is sent.

const $ = (id) => document.getElementById(id);
const LONG_S = 20;
const SMALL_PIXELS = 2e6;

/** Say how long it takes, of the seconds {encode, decode}. */
export function showExpected(pixels, expected) {
  const seconds = Math.ceil(expected.encode + expected.decode);
  const time = seconds < 120 ? `${Math.max(1, seconds)} s` : `${Math.round(seconds / 60)} min`;
  $("expected").textContent = `${(pixels / 1e6).toFixed(pixels < 1e6 ? 2 : 1)} megapixels: about ${time}.`;
}

/** Suggest what would be quicker, where it takes long. @param {number} steps that are asked for */
export function suggest(pixels, expected, steps) {
  const long = expected.encode + expected.decode > LONG_S;
  $("suggest").hidden = !long || (pixels <= SMALL_PIXELS && steps === 1);
  $("shrink").hidden = pixels <= SMALL_PIXELS;
  $("fewer").hidden = steps === 1;
}

/** Say nothing. */
export function clearAdvice() {
  $("expected").textContent = "";
  $("suggest").hidden = true;
}

/** The photograph in at most two megapixels, as a JPEG of high quality. */
export async function shrink(canvas, name) {
  const scale = Math.sqrt(SMALL_PIXELS / (canvas.width * canvas.height));
  const [width, height] = [canvas.width, canvas.height].map((side) => Math.max(1, Math.floor(side * scale)));
  const small = Object.assign(document.createElement("canvas"), { width, height });
  const context = small.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, 0, 0, width, height);
  const blob = await new Promise((resolve) => small.toBlob(resolve, "image/jpeg", 0.95));
  return new File([blob], `${name.replace(/\.[^.]*$/, "")}-small.jpg`, { type: "image/jpeg" });
}
