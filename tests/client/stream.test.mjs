import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { ChatError, NetworkError, createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";
import { scripted, until } from "./scripted.mjs";

const QUICK = { minDelay: 10, maxDelay: 50 };
const clientOf = (server) => createClient({ baseUrl: server.url });
const streamsOf = (server) => server.requests.filter(({ path }) => path.endsWith("/stream"));

/** Collect what a stream brings. */
function collect(test, server, options = {}) {
  const stream = clientOf(server).session(server.id).stream({ ...QUICK, ...options });
  const frames = [];
  const states = [];
  stream.on("*", (frame) => frames.push(frame));
  stream.on("state", (state, error) => states.push(error ? [state, error.code] : state));
  test.after(() => stream.abort());
  return { stream, frames, states };
}

const ids = (frames) => frames.map(({ id }) => id);

function talk(server) {
  const question = server.message("user", "Wie heißt die Stadt am Rhein? 🦄");
  const run = server.begin(question.sequence);
  server.delta(run, "Köln ");
  server.delta(run, "🦄 am Rhein");
  server.finish(run, "Köln 🦄 am Rhein");
  return server.frames.slice(1).map(({ id }) => id);
}

test("a stream brings what happens from now on", async (t) => {
  const server = await scripted(t);
  server.message("user", "before");
  const { stream, frames, states } = collect(t, server);
  await until(() => stream.state === "open");
  server.message("user", "after");
  await until(() => frames.length);
  assert.equal(frames[0].type, "message");
  assert.equal(frames[0].data.content, "after");
  assert.deepEqual(states, ["open"]);
});

test("a stream brings what comes after a sequence, and after the id of a delta", async (t) => {
  const server = await scripted(t);
  const all = talk(server);
  const whole = collect(t, server, { after: 1 });
  await until(() => whole.frames.length === all.length);
  assert.deepEqual(ids(whole.frames), all);
  const rest = collect(t, server, { after: all[2] });
  await until(() => rest.frames.length === all.length - 3);
  assert.deepEqual(ids(rest.frames), all.slice(3));
});

test("a stream is an async iterator that its loop's end closes", async (t) => {
  const server = await scripted(t);
  const all = talk(server);
  const seen = [];
  const stream = clientOf(server).session(server.id).stream({ after: 1 });
  for await (const frame of stream) {
    seen.push(frame.id);
    if (frame.type === "run.succeeded") break;
  }
  assert.deepEqual(seen, all);
  assert.equal(stream.state, "closed");
  await until(() => server.streams.size === 0);
});

test("a connection that is cut at any byte loses nothing and doubles nothing", async (t) => {
  const server = await scripted(t);
  const all = talk(server);
  const size = server.frames.slice(1).reduce((sum, { id, type, body }) => sum + Buffer.byteLength(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(body)}\n\n`), 0);
  for (let cutAfter = 0; cutAfter < size; cutAfter += 7) {
    server.plans = [{ cutAfter }];
    const { stream, frames } = collect(t, server, { after: 1 });
    await until(() => frames.length >= all.length, `cut after ${cutAfter} bytes`);
    assert.deepEqual(ids(frames), all, `cut after ${cutAfter} bytes`);
    assert.deepEqual(frames.filter(({ type }) => type === "message.delta").map(({ data }) => data.text).join(""), "Köln 🦄 am Rhein");
    stream.abort();
  }
});

test("a connection that is cut in the middle of a character goes on with it whole", async (t) => {
  const server = await scripted(t);
  server.message("user", "🦄");
  const frame = server.frames.at(-1);
  const text = `id: ${frame.id}\nevent: ${frame.type}\ndata: ${JSON.stringify(frame.body)}\n\n`;
  server.plans = [{ cutAfter: Buffer.from(text).indexOf(Buffer.from("🦄")) + 2 }];
  const { frames } = collect(t, server, { after: 1 });
  await until(() => frames.length);
  assert.equal(frames[0].data.content, "🦄");
  assert.equal(streamsOf(server).length, 2);
});

test("bytes that come one by one make the same frames", async (t) => {
  const server = await scripted(t);
  server.plans = [{ chop: true }];
  const all = talk(server);
  const { frames } = collect(t, server, { after: 1 });
  await until(() => frames.length === all.length);
  assert.deepEqual(ids(frames), all);
});

test("it comes back with the id of the last frame", async (t) => {
  const server = await scripted(t);
  const { stream, frames, states } = collect(t, server, { after: 1 });
  await until(() => stream.state === "open");
  const all = talk(server);
  await until(() => frames.length === all.length);
  server.cut();
  await until(() => streamsOf(server).length === 2);
  assert.equal(streamsOf(server)[1].headers["last-event-id"], all.at(-1));
  server.message("user", "later");
  await until(() => frames.length === all.length + 1);
  assert.deepEqual(states, ["open", ["offline", "network_error"], "open"]);
});

test("what is said again after a reconnect comes once", async (t) => {
  const server = await scripted(t);
  const all = talk(server);
  const { stream, frames } = collect(t, server, { after: 1 });
  await until(() => frames.length === all.length);
  server.frames.push(...server.frames.slice(1)); // a server that repeats itself
  for (const one of server.streams) one.pump();
  server.message("user", "later");
  await until(() => frames.length > all.length);
  await sleep(50);
  assert.deepEqual(ids(frames), [...all, server.frames.at(-1).id]);
  stream.abort();
});

test("a piece of an answer that is said again in the middle of it comes once", async (t) => {
  const server = await scripted(t);
  const run = server.begin(server.message("user", "?").sequence);
  const { frames } = collect(t, server, { after: 1 });
  for (const text of ["one", " two"]) server.delta(run, text);
  server.frames.push(...server.frames.slice(-2)); // a server that repeats itself
  server.delta(run, " three");
  await until(() => frames.at(-1)?.data.text === " three");
  const said = frames.filter(({ type }) => type === "message.delta").map(({ data }) => data.text);
  assert.deepEqual(said, ["one", " two", " three"]);
});

test("a server that restarts is found again, on the same stream", async (t) => {
  const server = await scripted(t);
  const { stream, frames, states } = collect(t, server, { after: 1 });
  await until(() => stream.state === "open");
  server.message("user", "one");
  await until(() => frames.length === 1);
  await server.stop();
  await until(() => stream.state === "offline");
  server.message("user", "two");
  await sleep(150);
  await server.start();
  await until(() => frames.length === 2);
  assert.deepEqual(frames.map(({ data }) => data.content), ["one", "two"]);
  assert.equal(states.at(-1), "open");
});

test("pauses grow with each failure, to a limit, and are not all the same", async (t) => {
  const server = await scripted(t);
  server.plans = Array.from({ length: 7 }, () => ({ status: 503 }));
  const times = [];
  const client = createClient({ baseUrl: server.url, fetch: (...request) => (times.push(performance.now()), fetch(...request)) });
  const stream = client.session(server.id).stream({ after: 1, minDelay: 40, maxDelay: 320 });
  t.after(() => stream.abort());
  await until(() => times.length === 7);
  const pauses = times.slice(1).map((time, n) => time - times[n]);
  pauses.forEach((pause, n) => {
    const longest = Math.min(320, 40 * 2 ** n);
    assert.ok(pause >= longest / 2 - 2 && pause < longest + 150, `pause ${n} took ${pause}`);
  });
});

test("Retry-After is heeded", async (t) => {
  const server = await scripted(t);
  server.plans = [{ status: 429, headers: { "Retry-After": "1" } }];
  const start = performance.now();
  const { stream } = collect(t, server, { after: 1 });
  await until(() => stream.state === "open");
  assert.ok(performance.now() - start >= 1000);
});

test("silence counts as a lost connection, comments do not", async (t) => {
  const server = await scripted(t);
  server.plans = [{ mute: true }];
  const { stream, frames } = collect(t, server, { after: 1, silence: 200 });
  await until(() => streamsOf(server).length === 2);
  await until(() => stream.state === "open");
  const beat = setInterval(() => [...server.streams].forEach((one) => one.comment()), 50);
  await sleep(600);
  clearInterval(beat);
  assert.equal(streamsOf(server).length, 2);
  server.message("user", "still here");
  await until(() => frames.length);
});

test("a connection that never answers counts as lost", async (t) => {
  const server = await scripted(t);
  let calls = 0;
  const hanging = (url, request) => (calls++ ? fetch(url, request) : new Promise((_, reject) => request.signal.addEventListener("abort", () => reject(request.signal.reason))));
  const stream = createClient({ baseUrl: server.url, fetch: hanging }).session(server.id).stream({ ...QUICK, after: 1, silence: 200 });
  t.after(() => stream.abort());
  await until(() => stream.state === "open");
});

test("204 closes: it is over, and nothing was missed", async (t) => {
  const server = await scripted(t);
  const { stream, frames } = collect(t, server, { after: 1 });
  await until(() => stream.state === "open");
  server.session.status = "ended";
  server.record("session.ended", { reason: "" });
  await until(() => stream.state === "closed");
  assert.equal(frames.at(-1).type, "session.ended");
  assert.equal(stream.error, null);
  for await (const _ of stream) assert.fail("nothing more comes");
});

for (const status of [400, 401, 403, 404]) {
  test(`${status} closes with the error, which a loop throws`, async (t) => {
    const server = await scripted(t);
    server.plans = [{ status, body: { code: "some_code", detail: "No." } }];
    const stream = clientOf(server).session(server.id).stream({ after: 1 });
    await assert.rejects(async () => { for await (const _ of stream); }, (error) => error instanceof ChatError && error.status === status && error.code === "some_code");
    assert.equal(stream.state, "closed");
    await sleep(100);
    assert.equal(streamsOf(server).length, 1);
  });
}

test("a session that nobody knows closes a stream from now on, too", async (t) => {
  const server = await scripted(t);
  const stream = clientOf(server).session("nobody").stream();
  await assert.rejects(async () => { for await (const _ of stream); }, { status: 404, code: "session_not_found" });
});

test("an answer that is no stream is tried again", async (t) => {
  const server = await scripted(t);
  server.plans = [{ type: "text/html" }];
  const { stream, states } = collect(t, server, { after: 1 });
  await until(() => stream.state === "open");
  assert.deepEqual(states[0], ["offline", "network_error"]);
});

test("a server that can't stream is polled, and its client remembers", async (t) => {
  const server = await scripted(t);
  server.plans = [{ status: 406, body: { code: "not_acceptable" } }];
  const client = clientOf(server);
  const frames = [];
  const stream = client.session(server.id).stream({ after: 1 });
  stream.on("*", (frame) => frames.push(frame));
  t.after(() => stream.abort());
  for (const [n, text] of ["one", "two"].entries()) {
    server.message("user", text);
    await until(() => frames.length === n + 1);
  }
  assert.deepEqual(frames.map(({ data }) => data.content), ["one", "two"]);
  const polls = server.requests.filter(({ path }) => path.endsWith("/events"));
  assert.deepEqual(polls.slice(0, 2).map(({ query }) => query.get("wait")), ["0", "25"]);
  assert.equal(polls[0].query.get("after"), "1");
  const other = client.session(server.id).stream({ after: 1 });
  t.after(() => other.abort());
  await until(() => other.state === "open");
  assert.equal(streamsOf(server).length, 1);
});

test("polling of a session that is over ends", async (t) => {
  const server = await scripted(t, { status: "ended" });
  server.plans = [{ status: 406 }];
  const { stream } = collect(t, server, { after: 0 });
  await until(() => stream.state === "closed");
  assert.equal(stream.error, null);
});

test("polling goes on where a connection was cut", async (t) => {
  const server = await scripted(t);
  server.plans = [{ status: 406 }];
  const { stream, frames } = collect(t, server, { after: 1 });
  await until(() => server.requests.some(({ query }) => query.get("wait") === "25"));
  server.cut();
  server.message("user", "one");
  await until(() => frames.length === 1);
});

test("aborting frees everything", async (t) => {
  const server = await scripted(t);
  const controller = new AbortController();
  const { stream } = collect(t, server, { after: 1, signal: controller.signal });
  await until(() => server.streams.size === 1);
  controller.abort();
  assert.equal(stream.state, "closed");
  assert.equal(stream.error, null);
  await until(() => server.streams.size === 0);
  await sleep(100);
  assert.equal(streamsOf(server).length, 1);
});

test("aborting in a pause ends the pause, and a loop that waits", async (t) => {
  const server = await scripted(t);
  server.plans = [{ status: 503 }];
  const stream = clientOf(server).session(server.id).stream({ after: 1, minDelay: 60_000 });
  const loop = (async () => { for await (const _ of stream); })();
  await until(() => stream.state === "offline");
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  stream.abort();
  await loop;
  assert.equal(timers(), before - 1);
});

test("a stream that was aborted before it began asks nobody", async (t) => {
  const server = await scripted(t);
  const stream = clientOf(server).session(server.id).stream({ after: 1, signal: AbortSignal.abort() });
  for await (const _ of stream) assert.fail("nothing comes");
  await sleep(30);
  assert.deepEqual(server.requests, []);
});

test("a handler that fails stops nobody else", async (t) => {
  const server = await scripted(t);
  t.mock.method(console, "error", () => {});
  const stream = clientOf(server).session(server.id).stream({ after: 0 });
  t.after(() => stream.abort());
  let count = 0;
  stream.on("session.created", () => { throw new Error("mine"); });
  const off = stream.on("*", () => (count += 1));
  await until(() => count === 1);
  off();
  server.message("user", "x");
  await sleep(50);
  assert.equal(count, 1);
  assert.equal(console.error.mock.callCount(), 1);
});

// ------------------------------------------------------------------------------------------------ streams of an answer

test("a message's stream brings its answer and is over", async (t) => {
  const server = await scripted(t);
  const stream = await clientOf(server).session(server.id).messages.post({ content: "one two three", delivery: "stream" });
  const frames = [];
  for await (const frame of stream) frames.push(frame);
  assert.deepEqual(frames.map(({ type }) => type), ["message", "run.started", "message.delta", "message.delta", "message.delta", "message", "run.succeeded"]);
  assert.equal(stream.state, "closed");
  assert.equal(server.requests.length, 1);
});

test("a message's stream that is cut anywhere brings its answer, and the question is stored once", async (t) => {
  for (const cutAfter of [0, 10, 100, 400, 500, 700, 900]) {
    const server = await scripted(t);
    server.plans = [{ cutAfter }];
    const stream = await clientOf(server).session(server.id).messages.post({ content: "one two three", delivery: "stream" });
    const frames = [];
    for await (const frame of stream) frames.push(frame);
    const said = frames.filter(({ type }) => type === "message").map(({ data }) => data.content);
    assert.deepEqual(said, ["one two three", "one two three"], `cut after ${cutAfter}`);
    assert.deepEqual(ids(frames), server.frames.slice(1).map(({ id }) => id), `cut after ${cutAfter}`);
  }
});

test("a message's stream whose beginning is lost is asked for under the same name", async (t) => {
  const server = await scripted(t);
  server.faults = [{ when: ({ method }) => method === "POST", lose: "after" }];
  const stream = await clientOf(server).session(server.id).messages.post({ content: "one two", delivery: "stream" });
  const frames = [];
  for await (const frame of stream) frames.push(frame);
  assert.equal(frames.filter(({ type, data }) => type === "message" && data.role === "user").length, 1);
  assert.equal(frames.at(-1).type, "run.succeeded");
});

test("a refused message's stream is refused at once", async (t) => {
  const server = await scripted(t);
  server.faults = [{ when: ({ method }) => method === "POST", status: 409, body: { code: "run_in_progress" } }];
  const post = clientOf(server).session(server.id).messages.post({ content: "x", delivery: "stream" });
  await assert.rejects(post, { status: 409, code: "run_in_progress" });
});

test("where a server can't stream, a message's stream is polled", async (t) => {
  const server = await scripted(t);
  server.faults = [{ when: ({ method }) => method === "POST", status: 406, body: { code: "not_acceptable" } }];
  const stream = await clientOf(server).session(server.id).messages.post({ content: "one two", delivery: "stream" });
  const types = [];
  for await (const { type } of stream) types.push(type);
  assert.deepEqual(types, ["message", "run.started", "message", "run.succeeded"]);
});

test("a message's stream ends with its signal, while the answer goes on", async (t) => {
  const server = await scripted(t);
  server.pace = 30;
  const controller = new AbortController();
  const stream = await clientOf(server).session(server.id).messages.post({ content: "one two three", delivery: "stream" }, { signal: controller.signal });
  for await (const { type } of stream) if (type === "message.delta") controller.abort();
  await until(() => server.streams.size === 0);
  await until(() => server.runs[0].status === "succeeded");
});

test("answering again can be streamed, and goes on where it is cut", async (t) => {
  for (const cutAfter of [0, 150, 300]) {
    const server = await scripted(t);
    const session = clientOf(server).session(server.id);
    for await (const _ of await session.messages.post({ content: "one two", delivery: "stream" }));
    const before = server.frames.length;
    server.plans = [{ cutAfter }];
    const frames = [];
    for await (const frame of await session.runs.again({ delivery: "stream" })) frames.push(frame);
    assert.deepEqual(ids(frames), server.frames.slice(before).map(({ id }) => id));
    assert.equal(server.runs.length, 2);
  }
});
