import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import loadWabt from "wabt";
import { Columns, MODULE, multiply } from "../src/decoder/matrix.js";

test("the module is matrix.wat, assembled", async () => {
  const wabt = await loadWabt();
  const source = readFileSync("src/decoder/matrix.wat", "utf8");
  const { buffer } = wabt.parseWat("matrix.wat", source, { simd: true }).toBinary({});
  assert.equal(Buffer.from(buffer).toString("base64"), MODULE);
});

test("products of any shape are exact up to 2^53", () => {
  for (const [m, k, n] of [
    [1, 1, 1],
    [3, 5, 7],
    [4, 8, 4],
    [128, 193, 9],
    [6, 2, 1030],
  ]) {
    const a = Float64Array.from({ length: m * k }, (_, i) => ((i * 7919) % 65535) - 32767);
    const b = Float64Array.from({ length: k * n }, (_, i) => ((i * 104729) % (2 ** 25 - 1)) - (2 ** 24 - 1));
    const made = multiply(a, Columns.of(b, k, n), m);
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let sum = 0n;
        for (let i = 0; i < k; i++) sum += BigInt(a[row * k + i]) * BigInt(b[i * n + column]);
        assert.equal(BigInt(made[row * n + column]), sum);
      }
    }
  }
});
