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

/** A matrix [k, n] as the inner loop reads it: panels of four columns, each row by row. */
export class Columns {
  readonly data: Float64Array;

  constructor(
    readonly k: number,
    readonly n: number,
  ) {
    this.data = new Float64Array(Math.ceil(n / PANEL) * PANEL * k);
  }

  /** From a row-major matrix. */
  static of(b: Float64Array, k: number, n: number): Columns {
    const made = new Columns(k, n);
    for (let row = 0; row < k; row++) {
      for (let column = 0, at = row * PANEL; column < n; column += PANEL, at += PANEL * k) {
        const from = row * n + column;
        const width = Math.min(PANEL, n - column);
        for (let c = 0; c < width; c++) made.data[at + c] = b[from + c];
      }
    }
    return made;
  }
}

/** a [m, k], row-major, times b [k, n] -> [m, n]. */
export function multiply(a: Float64Array, b: Columns, m: number): Float64Array {
  inner ??= load();
  const { memory, panel } = inner;
  const { k, n } = b;
  const rows = Math.ceil(m / PANEL) * PANEL;
  const columns = Math.ceil(n / PANEL) * PANEL;
  const place = rows * k; // of b, in doubles
  const out = place + columns * k;
  const missing = (out + rows * columns) * BYTES - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  const heap = new Float64Array(memory.buffer);
  heap.set(a);
  heap.fill(0, m * k, place);
  heap.set(b.data, place);
  for (let column = 0; column < n; column += PANEL) {
    panel(0, (place + column * k) * BYTES, (out + column) * BYTES, rows, k, columns * BYTES);
  }
  if (n === columns) return heap.slice(out, out + m * n);
  const made = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    made.set(heap.subarray(out + row * columns, out + row * columns + n), row * n);
  }
  return made;
}
