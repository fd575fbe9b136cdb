// A picture to keep or send: the same part of the original and of each codec side by side, with what they weigh.

import { size } from "./results.js";

const WIDTH = 1200;
const HEIGHT = 630;
const MARGIN = 40;
const GAP = 16;
const TOP = 150;
const BOTTOM = 110;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

/**
 * @param {{name: string, canvas: HTMLCanvasElement, bytes: number}[]} pictures the original first, then CDC
 * @param {[number, number]} point of the pictures that is shown
 * @returns {Promise<Blob>} a PNG of 1200x630 pixels
 */
export async function makeCard(pictures, point) {
  const card = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
  const context = card.getContext("2d", { alpha: false });
  context.fillStyle = "#101317";
  context.fillRect(0, 0, WIDTH, HEIGHT);
  const [original, cdc] = pictures;
  const share = Math.round((1 - cdc.bytes / original.bytes) * 100);
  write(context, share > 0 ? `${share} % smaller` : `${size(cdc.bytes)}`, MARGIN, 84, "700 56px", "#e9edf2");
  write(context, `A photograph of ${size(original.bytes)} in ${size(cdc.bytes)}, by the image codec CDC`, MARGIN, 124, "24px", "#a1acb9");
  const width = (WIDTH - 2 * MARGIN - (pictures.length - 1) * GAP) / pictures.length;
  const height = HEIGHT - TOP - BOTTOM;
  pictures.forEach(({ name, canvas, bytes }, i) => {
    const x = MARGIN + i * (width + GAP);
    drawPart(context, canvas, point, x, TOP, width, height);
    write(context, name, x, HEIGHT - BOTTOM + 36, "600 24px", name === "CDC" ? "#7fb0ff" : "#e9edf2");
    write(context, size(bytes), x, HEIGHT - BOTTOM + 66, "22px", "#a1acb9");
  });
  return new Promise((resolve) => card.toBlob(resolve, "image/png"));
}

function write(context, text, x, y, font, colour) {
  context.font = `${font} ${FONT}`;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

/** The part around a point, a pixel of the picture on 1.5 of the card, or what fits of a small one. */
function drawPart(context, canvas, [px, py], x, y, width, height) {
  const scale = Math.max(1.5, width / canvas.width, height / canvas.height);
  const [w, h] = [width / scale, height / scale];
  const start = (at, part, whole) => Math.max(0, Math.min(whole - part, at - part / 2));
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, start(px, w, canvas.width), start(py, h, canvas.height), w, h, x, y, width, height);
}
