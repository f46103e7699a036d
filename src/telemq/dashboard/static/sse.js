// Server-sent events, as the HTML standard reads them. Pure: text in, events out.

/**
 * A parser of one stream.
 *
 * `push` takes text as it comes, cut anywhere, and gives the events that are whole by it:
 * `{event, data}`. `lastId` and `retryMs` hold what the stream said last.
 */
export class Events {
  #rest = "";
  #event = "";
  #data = [];
  lastId = "";
  retryMs = null;

  push(text) {
    const found = [];
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line, found);
    return found;
  }

  #line(line, found) {
    if (line === "") {
      if (this.#data.length) {
        found.push({ event: this.#event || "message", data: this.#data.join("\n") });
      }
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment, which only says that the stream lives
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.lastId = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}
