/** Server-sent events (WHATWG HTML, 9.2) as a stream of {id, type, data}. */

export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly data: string;
}

const MAX_EVENT = 1 << 26; // characters: previews are images

/** Read events until the stream ends; half an event at its end is dropped. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let fields: Record<string, string> = {};
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      if (rest.length > MAX_EVENT) throw new Error("an event is too long");
      const lines = rest.split(/\r\n|\n/);
      rest = lines.pop() as string;
      for (const line of lines) {
        if (line === "") {
          if (fields["data"] !== undefined) {
            yield { id: fields["id"] ?? "", type: fields["event"] ?? "message", data: fields["data"] };
          }
          fields = {};
          continue;
        }
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name !== "") fields[name] = name === "data" && fields["data"] !== undefined ? `${fields["data"]}\n${value}` : value;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
