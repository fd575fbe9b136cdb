// The page: a picture comes in, goes through the service and is shown beside itself.

import { Service } from "./api.js";
import { Details } from "./details.js";
import { blobOf, draw, drawFile, isCdc, jpegWithin, psnr, resize } from "./picture.js";
import { Problem } from "./problems.js";
import { Results, duration, size } from "./results.js";
import { samples } from "./samples.js";
import { Settings } from "./settings.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const NAMES = { original: "Original", cdc: "CDC", jpeg: "JPEG" };
const canvases = { original: $("canvas-original"), cdc: $("canvas-cdc"), jpeg: $("canvas-jpeg") };
const SAID_EVERY_MS = 3000; // a screen reader is told of progress no more often

const service = new Service();
const settings = new Settings($("settings"));
const results = new Results($("results"));
const details = new Details(canvases, { original: $("detail-original"), cdc: $("detail-cdc"), jpeg: $("detail-jpeg") });
const viewer = new Viewer(
  { stage: $("stage"), world: $("world"), divider: $("divider"), canvases },
  { onZoom: (scale) => ($("zoom").value = `${Math.round(scale * 100)} %`), onFocus: (x, y) => details.lookAt(x, y) },
);

/** @type {{file: File, decodeOnly: boolean, visible: boolean} | null} `visible`: the browser can show the original */
let picture = null;
/** @type {{controller: AbortController, job: string | null, cancelled: boolean} | null} the run under way */
let running = null;
let lastSaid = 0;

// Choosing a picture ---------------------------------------------------------------------------------------------

async function choose(file) {
  await cancel();
  clearError();
  results.clear();
  const decodeOnly = await isCdc(file);
  const visible = !decodeOnly && (await drawFile(file, canvases.original));
  picture = { file, decodeOnly, visible };
  settings.decodeOnly = decodeOnly;
  $("go").textContent = decodeOnly ? "Decode" : "Compress";
  $("go").disabled = false;
  $("other").hidden = false;
  $("start").hidden = visible;
  $("compare").hidden = !visible;
  allowJpeg(false);
  if (visible) {
    showOriginal();
    say(`${file.name || "Picture"} is ready, ${canvases.original.width} by ${canvases.original.height} pixels.`);
  } else if (decodeOnly) {
    await run();
  } else {
    say(`The browser cannot show ${file.name}; the service may still take it.`);
    showNotice(`The browser cannot show ${file.name || "this file"}. Press Compress: the service may still take it.`);
  }
}

function showOriginal() {
  const { width, height } = canvases.original;
  viewer.reset(width, height);
  pair("original", "original");
  $("chip-left").textContent = `Original, ${width} × ${height}, ${size(picture.file.size)}`;
}

function startOver() {
  cancel();
  clearError();
  results.clear();
  picture = null;
  settings.decodeOnly = false;
  $("go").textContent = "Compress";
  for (const [id, hidden] of [["start", false], ["compare", true], ["progress", true], ["other", true]]) $(id).hidden = hidden;
  $("go").disabled = true;
  $("pick").focus();
}

// A run ----------------------------------------------------------------------------------------------------------

async function run() {
  if (picture === null || running !== null) return;
  clearError();
  const current = { controller: new AbortController(), job: null, cancelled: false };
  const { signal } = current.controller;
  try {
    service.key = settings.key;
    const decodeQuery = settings.decodeQuery();
    const encodeQuery = picture.decodeOnly ? null : settings.encodeQuery();
    running = current;
    begin();
    mark("start");
    const encoded = encodeQuery === null ? null : await encode(encodeQuery, signal);
    const file = encoded?.blob ?? picture.file;
    const [width, height] = await sizeOf(file, encoded, signal);
    prepare(width, height, file);
    const decoded = await decode(file, decodeQuery, current);
    await finish(file, encoded, decoded);
  } catch (error) {
    fail(error, current);
  } finally {
    if (running === current) running = null;
    end();
  }
}

async function encode(query, signal) {
  report("Encoding…");
  return service.encode(picture.file, query, signal);
}

async function sizeOf(file, encoded, signal) {
  if (encoded !== null) return ["width", "height"].map((side) => Number(encoded.headers.get(`x-cdc-${side}`)));
  const { width, height } = await service.inspect(file, signal);
  return [width, height];
}

/** Get ready to show previews: until the first one there is nothing to compare with. */
function prepare(width, height, file) {
  $("start").hidden = true;
  $("compare").hidden = false;
  resize(canvases.cdc, width, height);
  if (!picture.visible) {
    viewer.reset(width, height);
    pair("cdc", "cdc");
  }
  $("chip-right").textContent = `CDC, ${size(file.size)}`;
}

async function decode(file, query, current) {
  const { signal } = current.controller;
  mark("decode");
  if (query.steps === "auto") {
    report("Decoding…");
    return service.decodeNow(file, query, signal);
  }
  report("Waiting for the decoder…");
  current.job = (await service.submit(file, query, signal)).id;
  if (current.cancelled) service.cancel(current.job).catch(() => {});
  for await (const event of service.events(current.job, signal)) {
    if (event.type === "preview") await showPreview(event.data);
    else if (event.type === "progress") showProgress(event.data);
    else if (event.type === "state") showState(event.data);
  }
  return service.result(current.job, signal);
}

function showState(job) {
  if (job.state === "queued") report(job.position ? `Waiting, ${job.position} before this one…` : "Waiting for the decoder…");
  else if (job.state === "running") report("Decoding…");
  else if (job.state === "failed") throw Problem.of(job.error);
  else if (job.state === "cancelled") throw Problem.of({ type: "/problems/job-cancelled", title: "Cancelled" });
  const seconds = job.state === "succeeded" ? null : job.estimate_seconds;
  $("eta").textContent = seconds ? `about ${duration(seconds * 1000)}` : "";
}

function showProgress({ step, steps }) {
  report(`Decoding, step ${step} of ${steps}`, step / steps);
  $("eta").textContent = "";
}

async function showPreview({ step, steps, media_type: type, image }) {
  if (image === null) return; // it was too many bytes to keep
  const bitmap = await createImageBitmap(blobOf(image, type));
  draw(canvases.cdc, bitmap);
  bitmap.close();
  if (picture.visible) pair("original", "cdc");
  else pair("cdc", "cdc");
  $("chip-right").textContent = `CDC, step ${step} of ${steps}`;
  if (performance.getEntriesByName("cdc:preview").length === 0) {
    requestAnimationFrame(() => requestAnimationFrame(() => mark("preview"))); // the frame with it is on the screen
  }
}

async function finish(file, encoded, decoded) {
  report("Comparing…", 1);
  await drawFile(decoded.blob, canvases.cdc);
  if (picture.visible) pair("original", "cdc");
  else pair("cdc", "cdc");
  const { width, height } = canvases.cdc;
  const comparable = picture.visible && canvases.original.width === width && canvases.original.height === height;
  const row = { name: "CDC", bytes: file.size, psnr: comparable ? await psnr(canvases.original, canvases.cdc) : null };
  const rows = comparable ? [{ name: "Original", bytes: picture.file.size, psnr: null }, row] : [row];
  $("chip-right").textContent = `CDC, ${size(file.size)}`;
  results.showFigures(rows, width * height);
  results.showTimes(encoded?.headers ?? null, decoded.headers, elapsed("decode", "preview"));
  results.showFacts(decoded.headers, encoded?.headers.get("x-cdc-quality") ?? null);
  const stem = (picture.file.name || "picture").replace(/\.[^.]*$/, "");
  results.offer("#download-cdc", file, `${stem}.cdc`);
  results.offer("#download-png", decoded.blob, `${stem}.png`);
  $("details").hidden = !comparable;
  $("download-cdc").hidden = picture.decodeOnly;
  if (comparable) await compareJpeg(file.size, rows);
  else results.showNote(picture.decodeOnly ? "" : "The browser cannot show the original, so that there is nothing to compare with.");
  details.redraw();
  say(rows.map((r) => `${r.name}: ${size(r.bytes)}${r.psnr === null ? "" : `, ${r.psnr.toFixed(1)} decibels`}`).join(". "));
}

async function compareJpeg(bytes, rows) {
  const made = await jpegWithin(canvases.original, bytes);
  await drawFile(made.blob, canvases.jpeg);
  rows.push({ name: "JPEG", bytes: made.blob.size, psnr: await psnr(canvases.original, canvases.jpeg) });
  results.showFigures(rows, canvases.original.width * canvases.original.height);
  const ratio = (made.blob.size / bytes).toFixed(1);
  results.showNote(
    made.fits
      ? `JPEG: the best this browser makes within ${size(bytes)}, quality ${made.quality} of 100.`
      : `No JPEG of this browser is that small: quality 0, shown here, takes ${ratio} times the bytes.`,
  );
  allowJpeg(true);
}

// Around a run ---------------------------------------------------------------------------------------------------

function begin() {
  results.clear();
  for (const name of ["start", "decode", "preview"]) performance.clearMarks(`cdc:${name}`);
  allowJpeg(false);
  if (picture.visible) showOriginal();
  $("go").hidden = true;
  $("cancel").hidden = false;
  $("progress").hidden = false;
  $("cancel").focus({ preventScroll: true });
}

function end() {
  const focused = document.activeElement === $("cancel") || document.activeElement === document.body;
  $("go").hidden = false;
  $("cancel").hidden = true;
  $("progress").hidden = true;
  if (focused) $("go").focus({ preventScroll: true });
}

async function cancel() {
  if (running === null) return;
  const current = running;
  current.cancelled = true;
  if (current.job !== null) await service.cancel(current.job).catch(() => current.controller.abort());
  else current.controller.abort(); // leaving a request cancels its work
}

function fail(error, current) {
  if (current.cancelled || error.name === "AbortError") {
    if (picture?.visible) showOriginal();
    showNotice("Cancelled.");
    say("Cancelled.");
    return;
  }
  if (!(error instanceof Problem)) console.warn(error);
  showError(error instanceof Problem ? error : new Problem("Something went wrong", { detail: error.message, advice: "Try again." }));
}

function showError(problem) {
  const title = Object.assign(document.createElement("strong"), { textContent: problem.title });
  const parts = [problem.detail, problem.advice].filter(Boolean);
  const lines = parts.map((text) => Object.assign(document.createElement("p"), { textContent: text }));
  if (problem.id) lines.push(Object.assign(document.createElement("p"), { textContent: `Request ${problem.id}`, className: "id" }));
  $("error").replaceChildren(title, ...lines);
  if (problem.status === 401 || problem.status === 403) $("key").closest("details").open = true;
}

function showNotice(text) {
  $("error").replaceChildren(Object.assign(document.createElement("p"), { textContent: text, className: "plain" }));
}

function clearError() {
  $("error").replaceChildren();
}

/** Show how far it is; `share` 0..1, null where that is not known. */
function report(text, share = null) {
  $("stage-text").textContent = text;
  const bar = $("bar");
  bar.classList.toggle("unknown", share === null);
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.setAttribute("aria-valuetext", text);
  bar.firstElementChild.style.width = share === null ? "" : `${share * 100}%`;
  if (performance.now() - lastSaid > SAID_EVERY_MS) say(text);
}

function say(text) {
  lastSaid = performance.now();
  $("status").textContent = text;
}

function mark(name) {
  performance.mark(`cdc:${name}`);
}

function elapsed(from, to) {
  const [start, end] = [from, to].map((name) => performance.getEntriesByName(`cdc:${name}`)[0]);
  return start && end ? end.startTime - start.startTime : null;
}

// The two pictures shown -----------------------------------------------------------------------------------------

function pair(left, right) {
  viewer.show(left, right);
  $("left").value = left === "cdc" ? "original" : left;
  $("right").value = right === "original" ? "cdc" : right;
  const single = left === right;
  for (const id of ["left", "right"]) $(id).disabled = single;
  $("chip-left").hidden = single && left === "cdc";
  $("chip-right").hidden = single && left === "original";
  $("divider").setAttribute("aria-label", `Divider: ${NAMES[left]} on the left, ${NAMES[right]} on the right`);
}

function allowJpeg(allowed) {
  for (const id of ["left", "right"]) {
    $(id).querySelector("[value=jpeg]").disabled = !allowed;
  }
}

function choosePair(changed) {
  const other = changed === $("left") ? $("right") : $("left");
  if ($("left").value === $("right").value) other.value = other.options[0].value;
  const rows = Object.fromEntries([...document.querySelectorAll("#figures tbody tr")].map((r) => [r.cells[0].textContent, r.cells[1].textContent]));
  for (const id of ["left", "right"]) {
    const name = NAMES[$(id).value];
    $(`chip-${id}`).textContent = `${name}, ${size(Number((rows[name] ?? "0").replaceAll(",", "")))}`;
  }
  const [left, right] = [$("left").value, $("right").value];
  pair(left, right);
}

// Wiring ---------------------------------------------------------------------------------------------------------

function listen() {
  $("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  $("cancel").addEventListener("click", () => cancel());
  $("other").addEventListener("click", startOver);
  $("pick").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files[0]) choose($("file").files[0]);
    $("file").value = "";
  });
  for (const id of ["left", "right"]) $(id).addEventListener("change", () => choosePair($(id)));
  $("zoom-in").addEventListener("click", () => viewer.zoomIn());
  $("zoom-out").addEventListener("click", () => viewer.zoomOut());
  $("zoom-fit").addEventListener("click", () => viewer.fit());
  $("zoom-one").addEventListener("click", () => viewer.zoomTo(1));
  document.addEventListener("paste", (event) => take(event.clipboardData, event));
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    event.preventDefault();
    take(event.dataTransfer, event);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  addEventListener("pagehide", () => {
    if (running?.job) service.cancel(running.job).catch(() => {});
  });
}

function take(transfer, event) {
  const file = transfer?.files?.[0];
  if (!file) return;
  event.preventDefault();
  choose(file);
}

function offerSamples(photographs) {
  for (const sample of samples(photographs)) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, sample.label);
    button.addEventListener("click", async () => choose(await sample.make()));
    const item = document.createElement("li");
    item.append(button);
    $("samples").append(item);
    sample.make().then((file) => drawFile(file, canvas));
  }
}

async function main() {
  listen();
  const about = await service.about().catch(() => ({ samples: [], docs: false, version: "" }));
  $("docs").hidden = !about.docs;
  $("version").textContent = about.version;
  offerSamples(about.samples);
}

main();
