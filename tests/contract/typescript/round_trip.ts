// A round trip with the client that @hey-api/openapi-ts makes: node round_trip.js URL.
import { readFile, writeFile } from "node:fs/promises";

import { client } from "./client/client.gen";
import { decodeFile, encodeImage, getJob, inspectFile, listModels } from "./client/sdk.gen";

function must(condition: boolean, what: unknown): asserts condition {
  if (!condition) throw new Error(JSON.stringify(what));
}

async function main(): Promise<void> {
  client.setConfig({ baseUrl: process.argv[2] ?? "http://127.0.0.1:8000" });

  const photo = new Blob([await readFile("photo.png")]);
  const small = await encodeImage({ body: { file: photo }, query: { quality: 70 } });
  must(small.data instanceof Blob, small.error);
  const models = await listModels();
  must(models.data?.models[0]?.name === "cdc-lite", models.error);
  const found = await inspectFile({ body: { file: small.data } });
  must(found.data?.width === 96, found.error);
  const image = await decodeFile({ body: { file: small.data }, query: { steps: 2, gamma: 0 } });
  must(image.data instanceof Blob, image.error);
  await writeFile("decoded.png", Buffer.from(await image.data.arrayBuffer()));
  const accepted = await decodeFile({
    body: { file: small.data },
    query: { steps: 1 },
    headers: { Prefer: "respond-async" },
  });
  must(accepted.data !== undefined && "id" in accepted.data, accepted.error);
  const job = await getJob({ path: { id: accepted.data.id } });
  must(job.data?.id === accepted.data.id, job.error);
  const refused = await decodeFile({ body: { file: small.data.slice(0, -1) } });
  must(refused.error?.type === "/problems/truncated-file", refused);
  console.log("done");
}

void main();
