// The page: a picture comes in, goes through the service and is shown beside itself.

import { clearAdvice, showExpected, shrink, suggest } from "./advice.js";
import { Service } from "./api.js";
import { makeCard } from "./card.js";
import { Comparison } from "./comparison.js";
import { Device } from "./device.js";
import { Measure } from "./measure.js";
import { clearMessages, say, showError, showNotice } from "./messages.js";
import { drawFile, isCdc } from "./picture.js";
import { Problem } from "./problems.js";
import { Results } from "./results.js";
import { Run } from "./run.js";
import { samples } from "./samples.js";
import { Settings } from "./settings.js";
import { keptRun } from "./store.js";

const $ = (id) => document.getElementById(id);

const service = new Service();
const settings = new Settings($("settings"), settingsChanged);
const measure = new Measure();
const device = new Device();
const results = new Results($("results"));
const comparison = new Comparison();

/** @type {import("./run.js").Picture | null} */
let picture = null;
/** @type {Run | null} the run under way */
let running = null;
/** @type {{encode: number, decode: number} | null} seconds that the picture will take */
let expected = null;
let resting = 0;

const MODEL_EVERY_MS = 2000;
const REST_MS = 700; // after the last change of a setting
const MAX_RERUN_S = 15; // what takes longer is not started unasked

async function choose(file) {
  clearTimeout(resting);
  await running?.cancel();
  if (file.size === 0) throw new Problem("The file is empty", { advice: "Choose a file that is not empty." });
  clearMessages();
  clearAdvice();
  results.clear();
  const decodeOnly = await isCdc(file);
  const visible = !decodeOnly && (await drawFile(file, comparison.canvases.original));
  picture = { file, decodeOnly, visible };
  settings.decodeOnly = decodeOnly;
  $("go").textContent = decodeOnly ? "Decode" : "Compress";
  $("go").disabled = false;
  $("other").hidden = false;
  $("start").hidden = visible;
  const name = file.name || "This file";
  if (visible) {
    const { width, height } = comparison.canvases.original;
    comparison.showOriginal(file.size);
    say(`${name} is ready, ${width} by ${height} pixels.`);
    await expect();
  } else {
    comparison.hide();
    if (decodeOnly) await start();
    else showNotice(`The browser cannot show ${name}. Press Compress: the service may still take it.`);
  }
}

/** Say how long the picture will take, and what would be quicker. */
async function expect() {
  if (!picture?.visible) return;
  const { width, height } = comparison.canvases.original;
  const { steps, gamma, effort } = settings;
  expected = await service.estimate(width, height, { steps, gamma, effort }).catch(() => null);
  if (expected === null) return;
  showExpected(width * height, expected);
  suggest(width * height, expected, steps);
}

/** A setting was changed: what is shown is of the former ones; once all rests, it is made again. */
function settingsChanged() {
  clearTimeout(resting);
  if (picture === null) return;
  if (results.shown) results.stale = true;
  const again = results.shown || running !== null;
  resting = setTimeout(async () => {
    await expect();
    const quick = expected === null || expected.encode + expected.decode <= MAX_RERUN_S;
    if (!again || !quick || picture === null) return;
    await running?.cancel();
    await start({ quietly: true });
  }, REST_MS);
}

async function startOver() {
  clearTimeout(resting);
  await running?.cancel();
  clearMessages();
  clearAdvice();
  results.clear();
  comparison.hide();
  picture = null;
  settings.decodeOnly = false;
  $("go").textContent = "Compress";
  $("go").disabled = true;
  $("start").hidden = false;
  $("other").hidden = true;
  $("pick").focus();
}

/** @param {{quietly?: boolean}} how quietly: as a setting rests; the result stays until there is another one */
async function start({ quietly = false } = {}) {
  clearTimeout(resting);
  if (picture === null || running !== null) return;
  clearMessages();
  let queries;
  try {
    queries = [picture.decodeOnly ? null : settings.encodeQuery(), settings.decodeQuery()];
  } catch (problem) {
    showError(problem);
    return;
  }
  service.key = settings.key;
  if (!quietly) results.clear();
  if (picture.visible && !quietly) comparison.showOriginal(picture.file.size);
  const seconds = expected && expected.encode + expected.decode;
  running = new Run(picture, { service, comparison, results, measure, device });
  running.ended = work(running, () => running.run(...queries, picture.visible ? seconds : null), quietly);
  await running.ended;
}

/** Go on with what a reload broke off, where there is such a thing and the service still knows it. */
async function resume() {
  const kept = await keptRun();
  if (kept === null || picture !== null) return;
  const visible = !kept.decodeOnly && (await drawFile(kept.original, comparison.canvases.original));
  picture = { file: kept.original, decodeOnly: kept.decodeOnly, visible };
  settings.decodeOnly = kept.decodeOnly;
  $("go").textContent = kept.decodeOnly ? "Decode" : "Compress";
  $("go").disabled = false;
  $("other").hidden = false;
  $("start").hidden = true;
  if (visible) comparison.showOriginal(kept.original.size);
  running = new Run(picture, { service, comparison, results, measure, device });
  running.ended = work(running, () => running.resume(kept));
  await running.ended;
}

async function work(run, act, quietly = false) {
  showWorking(true, quietly);
  try {
    await act();
  } catch (error) {
    results.clear();
    if (run.picture.visible) comparison.showOriginal(run.picture.file.size);
    else comparison.hide();
    $("start").hidden = run.picture.visible;
    if (run.cancelled) {
      if (!quietly) showNotice("Cancelled.");
    } else {
      showError(error);
    }
  } finally {
    running = null;
    showWorking(false, quietly);
  }
}

function showWorking(working, quietly) {
  const focused = [$("go"), $("cancel"), document.body].includes(document.activeElement);
  $("go").hidden = working;
  $("cancel").hidden = !working;
  $("progress").hidden = !working;
  if (working) {
    $("start").hidden = true;
    if (!quietly) document.querySelector(".work").scrollIntoView({ block: "nearest" });
  }
  if (focused) $(working ? "cancel" : "go").focus({ preventScroll: true });
}

function open(file) {
  choose(file).catch(showError);
}

function offerSamples(photographs) {
  for (const sample of samples(photographs)) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, sample.label);
    button.addEventListener("click", () => sample.make().then(open, showError));
    const item = document.createElement("li");
    item.append(button);
    $("samples").append(item);
    sample.make().then((file) => drawFile(file, canvas), () => item.remove());
  }
}

function listen() {
  $("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  $("cancel").addEventListener("click", () => running?.cancel());
  $("other").addEventListener("click", startOver);
  $("pick").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) open(file);
    $("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) open(file);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // or the browser would leave the page for what was dropped
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer?.files ?? [];
    if (file) open(file);
    else showNotice("That was no file. Save the picture first, then drop the file here.");
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  $("shrink").addEventListener("click", () => {
    const { original } = comparison.canvases;
    shrink(original, picture.file.name || "photograph").then(open, showError);
  });
  $("fewer").addEventListener("click", () => (settings.steps = 1));
  $("card").addEventListener("click", () => offerCard().catch(showError));
}

/** Make the card; send it where the browser can, else keep it. */
async function offerCard() {
  const blob = await makeCard(comparison.pictures, comparison.point);
  results.offerCard(blob);
  const file = new File([blob], "cdc-comparison.png", { type: "image/png" });
  if (navigator.canShare?.({ files: [file] })) {
    await navigator.share({ files: [file], title: "CDC" }).catch((error) => {
      if (error.name !== "AbortError") $("download-card").click();
    });
  } else {
    $("download-card").click();
  }
}

async function main() {
  listen();
  const about = await service.about().catch(() => ({ samples: [], docs: false, version: "", model: null }));
  $("docs").hidden = !about.docs;
  $("version").textContent = about.version;
  offerSamples(about.samples);
  takeDefaults(about.model);
  if (about.decodes_here) device.load();
  await resume();
}

/** Begin with the defaults of the model, once there is one. */
async function takeDefaults(model) {
  while (!model) {
    await new Promise((resolve) => setTimeout(resolve, MODEL_EVERY_MS));
    ({ model } = await service.about().catch(() => ({ model: null })));
  }
  settings.setDefaults(model);
}

main();
