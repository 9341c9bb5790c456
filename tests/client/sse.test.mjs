import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStreamParser } from "../../django_chat_sessions/static/chat_sessions/sse.js";

const bytes = (text) => new TextEncoder().encode(text);

function parse(...parts) {
  const parser = new EventStreamParser();
  return parts.flatMap((part) => parser.push(typeof part === "string" ? bytes(part) : part));
}

const FRAMES = [
  { id: "1", type: "message", data: '{"text":"Grüße 🦄 aus Köln"}' },
  { id: "1", type: "message.delta", data: "one\ntwo" },
  { id: "2.0", type: "message", data: " kept" },
];

const written = (end) =>
  [`\uFEFFid: 1`, `data: {"text":"Grüße 🦄 aus Köln"}`, ``, `: a comment`, ``, `event:message.delta`, `data: one`, `data:two`, ``, `id:2.0`, `retry: 10`, `data:  kept`, ``, `data: never finished`].join(end);

for (const [name, end] of [["LF", "\n"], ["CR", "\r"], ["CR LF", "\r\n"]]) {
  test(`lines that end in ${name} are read wherever the bytes are cut`, () => {
    const all = bytes(written(end));
    for (let cut = 0; cut <= all.length; cut += 1) {
      assert.deepEqual(parse(all.subarray(0, cut), all.subarray(cut)), FRAMES, `cut at ${cut}`);
    }
  });

  test(`lines that end in ${name} are read byte by byte`, () => {
    assert.deepEqual(parse(...[...bytes(written(end))].map((byte) => Uint8Array.of(byte))), FRAMES);
  });
}

test("a frame is there as soon as its empty line begins", () => {
  assert.equal(parse("data: x\r\n\r").length, 1);
  assert.equal(parse("data: x\r\n\r", "\n").length, 1);
  assert.equal(parse("data: x\r\r").length, 1);
});

test("a frame without data is none, and its type is forgotten", () => {
  assert.deepEqual(parse("event: message.delta\n\ndata: x\n\n"), [{ id: null, type: "message", data: "x" }]);
});

test("a frame with empty data is one", () => {
  assert.deepEqual(parse("data\n\n"), [{ id: null, type: "message", data: "" }]);
});

test("an id with U+0000 does not count, an empty one does", () => {
  const frames = parse("id: 7\ndata: a\n\nid: 8\0\ndata: b\n\nid\ndata: c\n\n");
  assert.deepEqual(frames.map(({ id }) => id), ["7", "7", ""]);
});

test("unknown fields, and retries that are no number, do not count", () => {
  const parser = new EventStreamParser();
  parser.push(bytes("retry: soon\nretry: -5\nretry:\nfoo: bar\n: x: y\n"));
  assert.equal(parser.retry, null);
  parser.push(bytes("retry: 1500\n"));
  assert.equal(parser.retry, 1500);
});

test("only the first byte order mark is taken away", () => {
  assert.deepEqual(parse("\uFEFFdata: a\n\n\uFEFFdata: b\n\ndata: c\n\n").map(({ data }) => data), ["a", "c"]);
});

test("a long line in small pieces does not take long", () => {
  const parser = new EventStreamParser();
  const start = performance.now();
  const piece = bytes("x".repeat(50));
  parser.push(bytes("data: "));
  for (let n = 0; n < 100_000; n += 1) parser.push(piece);
  const [frame] = parser.push(bytes("\n\n"));
  assert.equal(frame.data.length, 5_000_000);
  assert.ok(performance.now() - start < 5_000);
});
