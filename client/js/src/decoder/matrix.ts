/** Matrix products in doubles, exact for the integers that FORMAT.md bounds. */

/** matrix.wat, assembled; `test/matrix.test.ts` assembles it again and compares. */
export const MODULE =
  "AGFzbQEAAAABCgFgBn9/f39/fwADAgEABQMBABAHEgIGbWVtb3J5AgAFcGFuZWwAAAqdBAGaBAIHfwt7IAEgBEEFdGohDANAIAAh" +
  "ByAHIARBA3RqIQggCCAEQQN0aiEJIAkgBEEDdGohCiAKIARBA3RqIQD9DAAAAAAAAAAAAAAAAAAAAAAhEP0MAAAAAAAAAAAAAAAA" +
  "AAAAACER/QwAAAAAAAAAAAAAAAAAAAAAIRL9DAAAAAAAAAAAAAAAAAAAAAAhE/0MAAAAAAAAAAAAAAAAAAAAACEU/QwAAAAAAAAA" +
  "AAAAAAAAAAAAIRX9DAAAAAAAAAAAAAAAAAAAAAAhFv0MAAAAAAAAAAAAAAAAAAAAACEXIAEhCwNAIAv9AAQAIQ0gC/0ABBAhDiAH" +
  "/QoDACEPIBAgDyAN/fIB/fABIRAgESAPIA798gH98AEhESAI/QoDACEPIBIgDyAN/fIB/fABIRIgEyAPIA798gH98AEhEyAJ/QoD" +
  "ACEPIBQgDyAN/fIB/fABIRQgFSAPIA798gH98AEhFSAK/QoDACEPIBYgDyAN/fIB/fABIRYgFyAPIA798gH98AEhFyAHQQhqIQcg" +
  "CEEIaiEIIAlBCGohCSAKQQhqIQogC0EgaiELIAsgDEkNAAsgAiAQ/QsEACACIBH9CwQQIAIgBWohAiACIBL9CwQAIAIgE/0LBBAg" +
  "AiAFaiECIAIgFP0LBAAgAiAV/QsEECACIAVqIQIgAiAW/QsEACACIBf9CwQQIAIgBWohAiAGQQRqIQYgBiADSA0ACws=";

const PANEL = 4; // columns, and rows, that a pass of the inner loop makes
const BYTES = 8;
const PAGE = 65536;
type Panel = (a: number, b: number, out: number, m: number, k: number, stride: number) => void;
let inner: { memory: WebAssembly.Memory; panel: Panel } | undefined;

function load(): { memory: WebAssembly.Memory; panel: Panel } {
  const code = Uint8Array.from(atob(MODULE), (character) => character.charCodeAt(0));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(code));
  return { memory: exports["memory"] as WebAssembly.Memory, panel: exports["panel"] as Panel };
}

/** a [m, k] times b [k, n], both row-major -> [m, n]. */
export function multiply(a: Float64Array, b: Float64Array, m: number, k: number, n: number): Float64Array {
  inner ??= load();
  const { memory, panel } = inner;
  const rows = Math.ceil(m / PANEL) * PANEL;
  const columns = Math.ceil(n / PANEL) * PANEL;
  const place = rows * k; // of the panel, in doubles
  const out = place + PANEL * k;
  const missing = (out + rows * columns) * BYTES - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  const heap = new Float64Array(memory.buffer);
  heap.set(a);
  heap.fill(0, m * k, place);
  for (let column = 0; column < n; column += PANEL) {
    const width = Math.min(PANEL, n - column);
    for (let i = 0, at = place, from = column; i < k; i++, at += PANEL, from += n) {
      for (let c = 0; c < width; c++) heap[at + c] = b[from + c];
    }
    panel(0, place * BYTES, (out + column) * BYTES, rows, k, columns * BYTES);
  }
  const made = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    made.set(heap.subarray(out + row * columns, out + row * columns + n), row * n);
  }
  return made;
}
