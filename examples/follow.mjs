// Decode as a job and follow it, with Node 20 or a browser: node examples/follow.mjs photo.cdc out.png [URL]
import { readFile, writeFile } from "node:fs/promises";

const [file, out, url = "http://127.0.0.1:8000"] = process.argv.slice(2);

const accepted = await fetch(`${url}/decode?steps=6&preview=true`, {
  method: "POST",
  headers: { "Content-Type": "image/x-cdc", Prefer: "respond-async", "Idempotency-Key": crypto.randomUUID() },
  body: await readFile(file),
});
if (accepted.status !== 202) throw new Error((await accepted.json()).detail);
const job = new URL(accepted.headers.get("location"), url);

const events = await fetch(`${job}/events`);
let text = "";
for await (const chunk of events.body.pipeThrough(new TextDecoderStream())) {
  text += chunk;
  const parts = text.split("\n\n");
  text = parts.pop();
  for (const part of parts) {
    const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2)));
    if (!fields.data) continue; // a comment that keeps the connection open
    const data = JSON.parse(fields.data);
    if (fields.event === "preview") console.log(`step ${data.step} of ${data.steps}: ${data.image.length} characters`);
    if (fields.event === "state") console.log(data.state);
  }
}
const result = await fetch(`${job}/result`);
if (!result.ok) throw new Error((await result.json()).detail);
await writeFile(out, Buffer.from(await result.arrayBuffer()));
console.log(`${out}: ${result.headers.get("x-cdc-width")}x${result.headers.get("x-cdc-height")}`);
