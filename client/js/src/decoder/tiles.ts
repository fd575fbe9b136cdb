/** How a canvas too large for one pass is covered by overlapping tiles. */

export interface Rectangle {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** What a tile reads, and what of it is kept, both in pixels of the canvas. */
export interface Tile {
  readonly window: Rectangle;
  readonly kept: Rectangle;
}

interface Maps {
  readonly data: Float32Array;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** Tiles of `tile` pixels a side whose kept parts are `margin` from inner edges; the last one is shifted inside. */
export function* cover(height: number, width: number, tile: number, margin: number): Generator<Tile> {
  for (const y of spans(height, tile, margin)) {
    for (const x of spans(width, tile, margin)) {
      yield {
        window: { top: y.origin, left: x.origin, height: y.size, width: x.size },
        kept: { top: y.start, left: x.start, height: y.stop - y.start, width: x.stop - x.start },
      };
    }
  }
}

interface Span {
  readonly origin: number;
  readonly size: number;
  readonly start: number;
  readonly stop: number;
}

function spans(length: number, tile: number, margin: number): Span[] {
  if (length <= tile) return [{ origin: 0, size: length, start: 0, stop: length }];
  const out: Span[] = [];
  for (let start = 0; start < length; ) {
    const origin = Math.min(Math.max(0, start - margin), length - tile);
    const stop = origin + tile === length ? length : origin + tile - margin;
    out.push({ origin, size: tile, start, stop });
    start = stop;
  }
  return out;
}

/** A part of maps that have `stride` pixels a side. */
export function pick(maps: Maps, window: Rectangle, stride: number): Maps {
  const [height, width] = [window.height / stride, window.width / stride];
  if (height === maps.height && width === maps.width) return maps;
  const data = new Float32Array(maps.channels * height * width);
  for (let c = 0; c < maps.channels; c++) {
    for (let row = 0; row < height; row++) {
      const from = (c * maps.height + window.top / stride + row) * maps.width + window.left / stride;
      data.set(maps.data.subarray(from, from + width), (c * height + row) * width);
    }
  }
  return { data, channels: maps.channels, height, width };
}

/** Write the kept part of what a tile made, [channels, window / stride], to maps. */
export function paste(maps: Maps, made: Float32Array, tile: Tile, stride: number): void {
  const { window, kept } = tile;
  const [height, width] = [window.height / stride, window.width / stride];
  for (let c = 0; c < maps.channels; c++) {
    for (let row = 0; row < kept.height / stride; row++) {
      const from = (c * height + (kept.top - window.top) / stride + row) * width + (kept.left - window.left) / stride;
      const to = (c * maps.height + kept.top / stride + row) * maps.width + kept.left / stride;
      maps.data.set(made.subarray(from, from + kept.width / stride), to);
    }
  }
}
