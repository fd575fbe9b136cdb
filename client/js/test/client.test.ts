import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readFileSync } from "node:fs";
import test from "node:test";
import { ApiError, Client, ConnectionFailed, JobCancelled } from "../src/index.js";

const url = process.env["CDC_TEST_URL"] as string;
const photo = Uint8Array.from(readFileSync(process.env["CDC_PHOTO"] as string));
const client = new Client(url);

test("encode, inspect, decode", async () => {
  const small = await client.encode(photo, { quality: 40 });
  assert.deepEqual([small.width, small.height, small.quality, small.mediaType], [96, 64, 40, "image/x-cdc"]);
  assert.equal((await client.inspect(small.data))["width"], 96);
  const made = await client.decode(small.data, { steps: 2, gamma: 0.5, seed: 3n, format: "png" });
  assert.deepEqual([made.steps, made.gamma, made.seed, made.mediaType], [2, 0.5, "3", "image/png"]);
  assert.equal((await client.models())[0]["name"], "cdc-lite");
  assert.ok((await client.encode(photo, { maxBytes: 900 })).data.length <= 900);
});

test("a job with its events and previews", async () => {
  const { data } = await client.encode(photo);
  const job = await client.submitDecode(data, { steps: 3, gamma: 1, preview: true });
  const seen = new Set<string>();
  for await (const event of job.events()) {
    seen.add(event.type);
    if (event.type === "preview") assert.ok(event.image.length > 100);
  }
  assert.deepEqual([...seen].sort(), ["preview", "progress", "state"]);
  assert.equal(job.status.state, "succeeded");
  assert.equal((await job.result()).mediaType, "image/png");
  assert.equal((await (await client.job(job.id)).result()).width, 96);
});

test("a cancelled job", async () => {
  const { data } = await client.encode(photo);
  const job = await client.submitDecode(data, { steps: 250, gamma: 1 });
  await job.cancel();
  if (job.status.state !== "succeeded") await assert.rejects(job.result(), JobCancelled);
});

test("problems are errors with a type", async () => {
  const broken = (await client.encode(photo)).data.slice();
  broken[30] ^= 1;
  await assert.rejects(client.decode(broken), (error: ApiError) => {
    assert.ok(error instanceof ApiError);
    assert.deepEqual([error.status, error.type], [422, "/problems/checksum-mismatch"]);
    assert.ok(error.requestId);
    return true;
  });
  await assert.rejects(client.encode(photo, { quality: 0 }), (error: ApiError) => error.errors.length === 1);
  await assert.rejects(client.job("none"), { status: 404 });
});

test("asks again where that helps, and says when nothing answers", async () => {
  let asked = 0;
  const server = createServer((_, response) => {
    asked += 1;
    response.writeHead(asked < 3 ? 503 : 200, { "Content-Type": "application/json", "Retry-After": "0" });
    response.end(asked < 3 ? "proxy" : '{"models": []}');
  }).listen(0);
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  assert.deepEqual(await new Client(base).models(), []);
  assert.equal(asked, 3);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(new Client(base, { maxRetries: 0 }).models(), ConnectionFailed);
  assert.throws(() => new Client("ftp://host"), TypeError);
});
