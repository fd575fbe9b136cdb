// Server-sent events (HTML Living Standard, 9.2) over fetch: EventSource cannot send an API key.

const RETRIES = 5; // in a row, without an event between them
const FIRST_WAIT_MS = 400;

/** Splits a stream of text into events {id, type, data}. */
export class EventParser {
  #rest = "";
  #id = "";

  /** @param {string} text @returns {{id: string, type: string, data: string}[]} the events that `text` completes */
  push(text) {
    this.#rest += text;
    const blocks = this.#rest.split(/\r\n\r\n|\n\n|\r\r/);
    this.#rest = blocks.pop();
    return blocks.map((block) => this.#read(block)).filter((event) => event !== null);
  }

  #read(block) {
    let type = "message";
    const data = [];
    for (const line of block.split(/\r\n|\n|\r/)) {
      if (line.startsWith(":")) continue; // a heartbeat
      const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "id") this.#id = value;
      else if (field === "event") type = value;
      else if (field === "data") data.push(value);
    }
    return data.length ? { id: this.#id, type, data: data.join("\n") } : null;
  }
}

/**
 * Yield events until `isLast(event)`; a connection that breaks is opened again after the last event seen.
 *
 * @param {(lastId: string) => Promise<Response>} open asks for the stream after the event of that id, "" for all
 * @param {(event: object) => boolean} isLast
 */
export async function* follow(open, isLast) {
  let lastId = "";
  let failures = 0;
  for (;;) {
    try {
      const response = await open(lastId);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const event of parser.push(value)) {
          lastId = event.id || lastId;
          failures = 0;
          yield event;
          if (isLast(event)) return;
        }
      }
    } catch (error) {
      // A refusal is final; so is leaving. Only a lost connection is worth another try.
      if (error.name === "AbortError" || (error.status && error.status < 500) || failures >= RETRIES) throw error;
    }
    failures += 1;
    if (failures > RETRIES) throw new Error("the connection was lost");
    await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT_MS * 2 ** (failures - 1)));
  }
}
