// Server-Sent Events as WHATWG HTML, section 9.2.6, reads them; bytes may be cut anywhere.

/** @typedef {{id: string | null, type: string, data: string}} RawFrame */

export class EventStreamParser {
  #decoder = new TextDecoder(); // takes a byte order mark away, and waits for the other half of a character
  #line = "";
  #isAfterReturn = false;
  /** @type {string[]} */ #data = [];
  #type = "";
  /** @type {string | null} */ #id = null;

  /** Milliseconds that the server wants a client to wait before it comes back. @type {number | null} */
  retry = null;

  /**
   * Take some bytes; give the frames that they complete.
   *
   * @param {Uint8Array} bytes
   * @returns {RawFrame[]}
   */
  push(bytes) {
    /** @type {RawFrame[]} */
    const frames = [];
    for (const line of this.#lines(this.#decoder.decode(bytes, { stream: true }))) {
      const frame = this.#take(line);
      if (frame) frames.push(frame);
    }
    return frames;
  }

  /** @param {string} text */
  #lines(text) {
    if (this.#isAfterReturn && text) {
      this.#isAfterReturn = false;
      if (text[0] === "\n") text = text.slice(1); // the other half of a CR LF
    }
    if (!/[\r\n]/.test(text)) {
      this.#line += text; // and is looked at once, however long the line becomes
      return [];
    }
    this.#isAfterReturn = text.endsWith("\r");
    const lines = (this.#line + text).split(/\r\n|\r|\n/);
    this.#line = lines.pop() ?? "";
    return lines;
  }

  /** @param {string} line @returns {RawFrame | undefined} */
  #take(line) {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  /** @returns {RawFrame | undefined} */
  #dispatch() {
    const frame = { id: this.#id, type: this.#type || "message", data: this.#data.join("\n") };
    const isEmpty = !this.#data.length;
    this.#data = [];
    this.#type = "";
    return isEmpty ? undefined : frame;
  }
}
