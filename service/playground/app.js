// The page: a picture comes in, goes through the service and is shown beside itself.

import { Service } from "./api.js";
import { Comparison } from "./comparison.js";
import { clearMessages, say, showError, showNotice } from "./messages.js";
import { drawFile, isCdc } from "./picture.js";
import { Problem } from "./problems.js";
import { Results } from "./results.js";
import { Run } from "./run.js";
import { samples } from "./samples.js";
import { Settings } from "./settings.js";

const $ = (id) => document.getElementById(id);

const service = new Service();
const settings = new Settings($("settings"));
const results = new Results($("results"));
const comparison = new Comparison();

/** @type {import("./run.js").Picture | null} */
let picture = null;
/** @type {Run | null} the run under way */
let running = null;

async function choose(file) {
  await running?.cancel();
  if (file.size === 0) throw new Problem("The file is empty", { advice: "Choose a file that is not empty." });
  clearMessages();
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
  } else {
    comparison.hide();
    if (decodeOnly) await start();
    else showNotice(`The browser cannot show ${name}. Press Compress: the service may still take it.`);
  }
}

async function startOver() {
  await running?.cancel();
  clearMessages();
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

async function start() {
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
  results.clear();
  if (picture.visible) comparison.showOriginal(picture.file.size);
  running = new Run(picture, { service, comparison, results });
  running.ended = work(running, queries);
  await running.ended;
}

async function work(run, queries) {
  showWorking(true);
  try {
    await run.run(...queries);
  } catch (error) {
    if (run.picture.visible) comparison.showOriginal(run.picture.file.size);
    else comparison.hide();
    $("start").hidden = run.picture.visible;
    if (run.cancelled) {
      showNotice("Cancelled.");
    } else {
      showError(error);
    }
  } finally {
    running = null;
    showWorking(false);
  }
}

function showWorking(working) {
  const focused = [$("go"), $("cancel"), document.body].includes(document.activeElement);
  $("go").hidden = working;
  $("cancel").hidden = !working;
  $("progress").hidden = !working;
  if (working) {
    $("start").hidden = true;
    document.querySelector(".work").scrollIntoView({ block: "nearest" });
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
  addEventListener("pagehide", () => running?.abandon());
}

async function main() {
  listen();
  const about = await service.about().catch(() => ({ samples: [], docs: false, version: "" }));
  $("docs").hidden = !about.docs;
  $("version").textContent = about.version;
  offerSamples(about.samples);
}

main();
