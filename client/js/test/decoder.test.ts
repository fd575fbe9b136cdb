import assert from "node:assert/strict";
import test from "node:test";
import { crc32c } from "../src/decoder/container.js";
import { toSrgb } from "../src/decoder/colour.js";
import { Decoder, UnreadableFile, checked, readManifest } from "../src/decoder/index.js";
import { normalNoise } from "../src/decoder/noise.js";
import { sha256 } from "../src/decoder/sha256.js";
import { hex } from "../src/decoder/container.js";
import { entries, files, image, read } from "./files.js";

const decoder = await Decoder.load(files, { threads: 1 });

for (const entry of entries) {
  test(`conformance: ${entry.file}`, async () => {
    const data = read(entry.file);
    if (entry.error !== undefined) {
      assert.throws(
        () => decoder.symbols(data),
        (error) => error instanceof UnreadableFile && error.code === entry.error,
      );
      return;
    }
    assert.equal(decoder.symbols(data), entry.symbols);
    if (!entry.image) return;
    const made = await decoder.decode(data);
    const expected = image(entry);
    assert.equal(made.width * made.height * 3, expected.length);
    let far = 0;
    for (let i = 0; i < expected.length; i++) {
      const at = Math.floor(i / 3) * 4 + (i % 3);
      if (Math.abs(made.data[at] - expected[i]) > 1) far += 1;
    }
    assert.ok(far <= expected.length / 1000, `${far} of ${expected.length} values differ by more than a level`);
  });
}

/** A file whose COLOUR section says `space`, made from the one of Display P3. */
function recoloured(space: number): Uint8Array {
  const data = read("4db9ad33bfa08c8e", "64x64-display-p3.cdc");
  const body = data.subarray(0, data.length - 4);
  assert.deepEqual([...body.subarray(-4)], [4, 1, 1, 0]);
  body[body.length - 2] = space;
  new DataView(data.buffer).setUint32(body.length, crc32c(body), true);
  return data;
}

test("Display P3 stays, other spaces become sRGB, unknown ones are refused", async () => {
  const wide = await decoder.decode(recoloured(1));
  assert.equal(wide.colorSpace, "display-p3");
  assert.equal((await decoder.decode(read("4db9ad33bfa08c8e", "64x64.cdc"))).colorSpace, "srgb");
  for (const space of [2, 3]) {
    const made = await decoder.decode(recoloured(space));
    const expected = wide.data.slice();
    toSrgb(expected, space);
    assert.equal(made.colorSpace, "srgb");
    assert.deepEqual(made.data, expected);
    assert.notDeepEqual(made.data, wide.data);
  }
  for (const space of [0, 4, 255]) await assert.rejects(decoder.decode(recoloured(space)), { code: "unsupported-version" });
});

test("colours in sRGB are those of the service, within a level", () => {
  const { pixels, srgb } = JSON.parse(process.env["CDC_COLOURS"] as string) as { pixels: number[]; srgb: number[][] };
  srgb.forEach((expected, i) => {
    const data = Uint8ClampedArray.from(pixels);
    toSrgb(data, i + 1);
    data.forEach((value, at) => assert.ok(Math.abs(value - expected[at]) <= 1, `space ${i + 1}, ${at}: ${value} ${expected[at]}`));
  });
});

test("mutated files give typed errors", () => {
  const count = Number(process.env["CDC_MUTATIONS"] ?? "500");
  const sources = ["1x1", "64x64-display-p3"].map((name) => read("4db9ad33bfa08c8e", `${name}.cdc`));
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let refused = 0;
  for (let number = 0; number < count; number++) {
    let data = sources[number % 2].slice();
    for (let i = 0; i <= random(4); i++) data[random(data.length)] = random(256);
    if (number % 7 === 0) data = data.slice(0, random(data.length));
    if (number % 11 === 0) data = Uint8Array.from([...data.subarray(0, random(data.length)), ...sources[1].subarray(random(99))]);
    if (number % 3 !== 0 && data.length > 4) {
      const body = data.subarray(0, data.length - 4); // behind a right checksum
      new DataView(data.buffer).setUint32(body.length, crc32c(body), true);
    }
    try {
      decoder.symbols(data, 1 << 16);
    } catch (error) {
      assert.ok(error instanceof UnreadableFile, `${hex(data)}: ${String(error)}`);
      refused += 1;
    }
  }
  assert.ok(refused > count / 2 && refused < count);
});

test("options out of range, limits and signals", async () => {
  const data = read("4db9ad33bfa08c8e", "65x63.cdc");
  for (const wrong of [{ steps: 0 }, { steps: 1.5 }, { gamma: 2.1 }, { gamma: NaN }, { seed: -1n }, { seed: 2n ** 63n }]) {
    await assert.rejects(decoder.decode(data, wrong), RangeError);
  }
  await assert.rejects(decoder.decode(data, { maxPixels: 4094 }), { code: "too-many-pixels" });
  const reason = new Error("enough");
  await assert.rejects(decoder.decode(data, { signal: AbortSignal.abort(reason) }), reason);
});

test("gamma adds noise, step by step, the same each time", async () => {
  const data = read("4db9ad33bfa08c8e", "65x63.cdc");
  const steps: string[] = [];
  const options = { gamma: 1, steps: 3, onProgress: (_: unknown, step: number, of: number) => void steps.push(`${step}/${of}`) };
  const [plain, first, again] = [await decoder.decode(data), await decoder.decode(data, options), await decoder.decode(data, options)];
  assert.deepEqual(first.data, again.data);
  assert.notDeepEqual(first.data, plain.data);
  assert.notDeepEqual(first.data, (await decoder.decode(data, { ...options, seed: 5n })).data);
  assert.deepEqual(steps.slice(0, 3), ["0/3", "1/3", "2/3"]);
});

test("noise is that of every other decoder", () => {
  const noise = normalNoise(0x1234567890abcdefn, 2, 3);
  const expected = JSON.parse(process.env["CDC_NOISE"] as string) as number[];
  expected.forEach((value, i) => assert.ok(Math.abs(noise[i] - value) < 1e-6, `${i}: ${noise[i]} ${value}`));
});

test("SHA-256 of lengths around a block", () => {
  assert.equal(hex(sha256(new Uint8Array())), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  assert.equal(hex(sha256(new Uint8Array(64))), "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
});

test("files that are not those of the manifest are refused", () => {
  assert.throws(() => checked(files.manifest, "denoiser", new Uint8Array(3)), { name: "DecoderUnavailable" });
  for (const text of ["", "null", "{}", '{"format": "cdc-decoder/1"}']) {
    assert.throws(() => readManifest(text), { name: "DecoderUnavailable" });
  }
});
