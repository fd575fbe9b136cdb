/** Range decoding of symbols, as FORMAT.md describes it. 64-bit integers are pairs of exact doubles below 2^32. */

import { UnreadableFile, readVarint } from "./container.js";

const SYMBOL_LIMIT = 1 << 15;
const WORD = 2 ** 32;
const WHOLE = WORD - 1;

function corrupt(reason: string): UnreadableFile {
  return new UnreadableFile("corrupt-stream", `entropy-coded data: ${reason}`);
}

/** Tables of the symbols of z or y: first value of each group, and the borders of its entries in 2^24 parts. */
export class Tables {
  readonly borders: Int32Array[] = [];
  constructor(
    readonly lowest: Int32Array,
    sizes: Int32Array,
    counts: Int32Array,
  ) {
    let start = 0;
    for (const size of sizes) {
      const borders = new Int32Array(size + 1);
      let before = 0;
      for (let i = 0; i < size; i++) {
        borders[i] = Math.floor((before * (2 ** 24 - size)) / 2 ** 20) + i;
        before += counts[start + i];
      }
      borders[size] = 2 ** 24;
      this.borders.push(borders);
      start += size;
    }
  }
}

/** One stream, read part by part. Every method throws UnreadableFile, "corrupt-stream". */
export class Stream {
  private readonly words: DataView;
  private readonly count: number;
  private readonly escapes: Uint8Array;
  private escapeAt = 0;
  private next = 2;
  private spanHigh = WHOLE;
  private spanLow = WHOLE;
  private offsetHigh: number;
  private offsetLow: number;

  constructor(
    data: Uint8Array,
    private readonly tables: Tables,
  ) {
    const [length, at] = readVarint(data, 0, true);
    if (length > data.length - at || (data.length - at - length) % 4 !== 0) throw corrupt("its lengths do not fit");
    this.escapes = data.subarray(at, at + length);
    const start = at + length;
    this.words = new DataView(data.buffer, data.byteOffset + start, data.length - start);
    this.count = (data.length - start) / 4;
    this.offsetHigh = this.word(0);
    this.offsetLow = this.word(1);
  }

  private word(index: number): number {
    return index < this.count ? this.words.getUint32(4 * index, true) : 0;
  }

  /** The next part: writes the symbol of each place to `out`. `groups[i]` is the group of place i. */
  part(groups: Uint8Array | Uint16Array, out: Int32Array): void {
    const sizes = new Int32Array(this.tables.borders.length + 1);
    for (let i = 0; i < groups.length; i++) sizes[groups[i] + 1]++;
    for (let g = 0; g < sizes.length - 1; g++) sizes[g + 1] += sizes[g];
    const order = new Int32Array(groups.length);
    const fill = sizes.slice();
    for (let i = 0; i < groups.length; i++) order[fill[groups[i]]++] = i;
    const escaped: number[] = [];
    for (let group = 0; group < sizes.length - 1; group++) {
      const lowest = this.tables.lowest[group];
      const borders = this.tables.borders[group];
      for (let i = sizes[group]; i < sizes[group + 1]; i++) {
        const entry = this.entry(borders);
        out[order[i]] = lowest + entry;
        if (entry === borders.length - 2) escaped.push(order[i]);
      }
    }
    for (const place of escaped) {
      const lowest = this.tables.lowest[groups[place]];
      let excess: number;
      [excess, this.escapeAt] = readVarint(this.escapes, this.escapeAt, true);
      const value = excess % 2 === 1 ? lowest - 1 - (excess - 1) / 2 : out[place] + excess / 2;
      if (Math.abs(value) > SYMBOL_LIMIT) throw corrupt("a symbol is out of range");
      out[place] = value;
    }
  }

  private entry(borders: Int32Array): number {
    const { offsetHigh, offsetLow } = this;
    const scale = this.spanHigh * 256 + Math.floor(this.spanLow / 2 ** 24); // span / 2^24, below 2^40
    // The quotient of doubles is at most one off; exact products decide below.
    const quantile = (offsetHigh * WORD + offsetLow) / scale;
    let low = 0;
    let high = borders.length - 2;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (borders[middle] <= quantile) low = middle;
      else high = middle - 1;
    }
    const scaleHigh = Math.floor(scale / 2 ** 20);
    const scaleLow = scale - scaleHigh * 2 ** 20;
    for (;;) {
      const border = borders[low];
      const upper = border * scaleHigh; // below 2^44, counts 2^20
      let productHigh = Math.floor(upper / 4096);
      let productLow = (upper - productHigh * 4096) * 2 ** 20 + border * scaleLow;
      const carry = Math.floor(productLow / WORD);
      productHigh += carry;
      productLow -= carry * WORD;
      let restHigh = offsetHigh - productHigh;
      let restLow = offsetLow - productLow;
      if (restLow < 0) {
        restLow += WORD;
        restHigh -= 1;
      }
      if (restHigh < 0) {
        low -= 1;
        continue;
      }
      const width = borders[low + 1] - border;
      const wide = width * scaleHigh;
      let spanHigh = Math.floor(wide / 4096);
      let spanLow = (wide - spanHigh * 4096) * 2 ** 20 + width * scaleLow;
      const over = Math.floor(spanLow / WORD);
      spanHigh += over;
      spanLow -= over * WORD;
      if (restHigh > spanHigh || (restHigh === spanHigh && restLow >= spanLow)) {
        if (low === borders.length - 2) throw corrupt("the range coder's words are invalid");
        low += 1;
        continue;
      }
      if (spanHigh === 0) {
        spanHigh = spanLow;
        spanLow = 0;
        restHigh = restLow;
        restLow = this.word(this.next++);
      }
      this.spanHigh = spanHigh;
      this.spanLow = spanLow;
      this.offsetHigh = restHigh;
      this.offsetLow = restLow;
      return low;
    }
  }

  /** Check that the stream ends here. */
  finish(): void {
    const begun = this.spanHigh !== WHOLE || this.spanLow !== WHOLE;
    const unfinished = begun && this.offsetHigh * WORD + this.offsetLow >= 2 ** 33 - 1;
    if (this.next < this.count || unfinished) throw corrupt("words are left over");
    if (this.escapeAt !== this.escapes.length) throw corrupt("escapes are left over");
  }
}
