// Against the real server, whose address and tokens the environment tells, through a wire that breaks.

import assert from "node:assert/strict";
import { createServer, connect } from "node:net";
import { describe, test as alone } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";
import { until } from "./scripted.mjs";

const { CHAT_URL, CHAT_WSGI_URL, CHAT_TOKEN, CHAT_OTHER_TOKEN } = process.env;

const clientOf = (url = CHAT_URL, token = CHAT_TOKEN) =>
  createClient({ baseUrl: `${url}/api/chat/`, headers: { Authorization: `Token ${token}` } });

/** A wire to the server that can be cut: at once, or after so many bytes of what comes back. */
async function wire(test) {
  const target = new URL(CHAT_URL);
  const plans = [];
  const ends = new Set();
  const cut = () => ends.forEach((end) => end.resetAndDestroy());
  const server = createServer((near) => {
    const far = connect(Number(target.port), target.hostname);
    let budget = Infinity;
    near.on("data", (bytes) => {
      if (plans.length && bytes.toString().startsWith(plans[0].method)) budget = plans.shift().cutAfter;
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      near.write(bytes.subarray(0, Math.max(0, budget)));
      budget -= bytes.length;
      if (budget < 0) near.end(() => setTimeout(() => (near.resetAndDestroy(), far.resetAndDestroy()), 2));
    });
    for (const [end, other] of [[near, far], [far, near]]) {
      ends.add(end);
      end.on("error", () => {}).on("close", () => (ends.delete(end), other.destroy()));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => (cut(), server.close()));
  return { url: `http://127.0.0.1:${server.address().port}`, plans, cut };
}

async function open(client, body = { agent: "slow_echo" }) {
  return client.session(await client.sessions.open(body));
}

function follow(test, session, options) {
  const conversation = session.follow(options);
  const snapshots = [];
  conversation.subscribe(() => snapshots.push(conversation.getSnapshot()));
  test.after(() => conversation.close());
  return { conversation, snapshots, now: () => conversation.getSnapshot() };
}

const words = ({ messages }) => messages.map(({ content, isPartial }) => (isPartial ? `${content}…` : content));

async function framesOf(session, isLast = ({ type }) => type.startsWith("run.") && type !== "run.started") {
  const frames = [];
  for await (const frame of session.stream({ after: 0 })) {
    frames.push(frame);
    if (isLast(frame)) break;
  }
  return frames;
}

describe("against the real server", { concurrency: 4, skip: !CHAT_URL && "CHAT_URL is not set" }, () => {
  const test = alone;

  test("a streamed answer comes word by word, and then as a whole", async () => {
    const session = await open(clientOf());
    const frames = [];
    for await (const frame of await session.messages.post({ content: "Grüße 🦄 aus Köln", delivery: "stream" })) frames.push(frame);
    const said = frames.filter(({ type }) => type === "message.delta").map(({ data }) => data.text);
    assert.equal(said.join(""), "Grüße 🦄 aus Köln");
    assert.ok(said.length > 1);
    assert.equal(frames.at(-1).type, "run.succeeded");
    assert.deepEqual((await framesOf(session)).slice(1).map(({ id }) => id), frames.map(({ id }) => id));
  });

  test("an answer whose connection is cut anywhere comes whole and once", async (t) => {
    const broken = await wire(t);
    const client = clientOf(broken.url);
    for (const cutAfter of [0, 300, 460, 520, 700, 900, 1000, 1060, 1100]) {
      broken.plans.push({ method: "POST", cutAfter: Infinity }, { method: "POST", cutAfter }, { method: "GET", cutAfter: cutAfter || 300 });
      const session = await open(client);
      const stream = await session.messages.post({ content: "🦄🦄🦄 🦄🦄🦄 🦄🦄🦄", delivery: "stream" });
      const frames = [];
      for await (const frame of stream) frames.push(frame);
      broken.plans.length = 0;
      const all = (await framesOf(session)).slice(1);
      assert.deepEqual(frames.map(({ id }) => id), all.map(({ id }) => id), `cut after ${cutAfter}`);
      assert.deepEqual(frames.map(({ data }) => data), all.map(({ data }) => data));
      assert.equal(all.filter(({ type }) => type === "message").length, 2);
    }
  });

  test("a message whose answer is lost is stored once", async (t) => {
    const broken = await wire(t);
    const session = await open(clientOf(broken.url), { agent: "echo" });
    broken.plans.push({ method: "POST", cutAfter: 0 }, { method: "POST", cutAfter: 100 });
    const { message, reply } = await session.messages.post({ content: "once" });
    assert.deepEqual([message.content, reply.content], ["once", "once"]);
    assert.equal((await session.messages.list()).messages.length, 2);
  });

  test("a conversation over a wire that breaks all the time is shown whole, and never twice", async (t) => {
    const broken = await wire(t);
    const client = clientOf(broken.url);
    const session = await open(client);
    const { now, snapshots } = follow(t, session);
    await until(() => now().connection === "open");
    const said = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich";
    await clientOf().session(session.id).messages.post({ content: said, delivery: "background" });
    const cutting = setInterval(broken.cut, 400);
    await until(() => now().run?.status === "succeeded");
    clearInterval(cutting);
    assert.deepEqual(words(now()), [said, said]);
    const partials = snapshots.flatMap(({ messages }) => messages.filter(({ isPartial }) => isPartial));
    assert.ok(partials.length);
    assert.ok(partials.every(({ content }) => said.startsWith(content)));
  });

  test("a reload in mid-answer shows at once what was said so far, and a second tab the same", async (t) => {
    const client = clientOf();
    const session = await open(client);
    const first = follow(t, session);
    await until(() => first.now().connection === "open");
    const said = "one two three four five six seven eight nine ten eleven twelve";
    await first.conversation.post(said);
    await until(() => /^one two three.*…$/.test(words(first.now()).at(-1)));
    const second = follow(t, clientOf().session(session.id));
    await until(() => second.snapshots.some(({ isLoaded }) => isLoaded));
    await until(() => second.now().messages.at(-1)?.isPartial);
    assert.ok(second.now().messages.at(-1).content.startsWith("one two three"));
    assert.equal(second.now().isAnswering, true);
    await until(() => [first, second].every(({ now }) => now().run.status === "succeeded"));
    assert.deepEqual(words(first.now()), [said, said]);
    assert.deepEqual(first.now().messages.map(({ sequence }) => sequence), second.now().messages.map(({ sequence }) => sequence));
  });

  test("a cancelled answer keeps what was said, and can be given again", async (t) => {
    const session = await open(clientOf());
    const { now, conversation } = follow(t, session);
    await until(() => now().connection === "open");
    const said = "one two three four five six seven eight nine ten eleven twelve";
    await conversation.post(said);
    await until(() => /^one two.*…$/.test(words(now()).at(-1)));
    await conversation.cancel();
    await until(() => now().run.status === "cancelled" && !now().messages.at(-1).isPartial);
    const { content, metadata } = now().messages.at(-1);
    assert.ok(said.startsWith(content) && content !== said);
    assert.equal(metadata.cut_short, "cancelled");
    await conversation.again();
    await until(() => now().run.status === "succeeded");
    assert.deepEqual(words(now()), [said, said]);
  });

  test("an agent that fails is seen to have failed", async (t) => {
    const session = await open(clientOf(), { agent: "broken" });
    const { now, conversation } = follow(t, session);
    await until(() => now().isLoaded);
    await conversation.post("work!");
    await until(() => now().run?.status === "failed");
    assert.ok(now().run.error);
    assert.deepEqual(words(now()), ["work!"]);
  });

  test("a stream outlives what the server lets a connection last", async (t) => {
    const session = await open(clientOf(), { agent: "echo" });
    const stream = session.stream();
    t.after(() => stream.abort());
    const contents = [];
    stream.on("message", ({ data }) => contents.push(data.content));
    const states = [];
    stream.on("state", (state) => states.push(state));
    await until(() => stream.state === "open");
    const expected = Array.from({ length: 16 }, (_, n) => `m${n}`);
    for (const content of expected) {
      await session.messages.post({ content, delivery: "store" });
      await sleep(500);
    }
    await until(() => contents.length === expected.length);
    assert.deepEqual(contents, expected);
    assert.ok(states.filter((state) => state === "open").length > 1, states.join());
    assert.ok(!states.includes("offline"), states.join());
  });

  test("edits, withdrawals, titles and the end are seen", async (t) => {
    const client = clientOf();
    const session = await open(client, { agent: "echo" });
    const { now } = follow(t, session);
    await until(() => now().connection === "open");
    const { message: one } = await session.messages.post({ content: "one", delivery: "store" });
    const { message: two } = await session.messages.post({ content: "two", delivery: "store" });
    await session.messages.edit(one.sequence, "ONE");
    await session.messages.withdraw(two.sequence);
    await until(() => words(now()).join() === "ONE");
    await client.sessions.update(session.id, { title: "T" });
    await until(() => now().session.title === "T");
    await client.sessions.end(session.id, "enough");
    await until(() => now().session.end_reason === "enough" && now().connection === "closed");
    assert.equal(now().error, null);
  });

  test("a session that is deleted, or somebody else's, is an error", async (t) => {
    const client = clientOf();
    const session = await open(client, { agent: "echo" });
    const { now } = follow(t, session);
    await until(() => now().connection === "open");
    const others = follow(t, clientOf(CHAT_URL, CHAT_OTHER_TOKEN).session(session.id));
    await until(() => others.now().error?.status === 404);
    await client.sessions.delete(session.id);
    await until(() => now().error?.status === 404);
    assert.equal(now().connection, "closed");
  });

  test("a token that is no good closes with 401", async () => {
    const session = await open(clientOf(), { agent: "echo" });
    const stream = clientOf(CHAT_URL, "nonsense").session(session.id).stream({ after: 0 });
    await assert.rejects(async () => { for await (const _ of stream); }, { status: 401, code: "not_authenticated" });
  });

  test("heartbeats move the deadline, and the countdown with it", async (t) => {
    const client = clientOf();
    const opened = await client.sessions.open({ agent: "echo" });
    const alive = client.session(opened).keepAlive({ session: opened, every: 1_000 });
    t.after(() => alive.close());
    await sleep(1_500);
    assert.ok(alive.remaining < opened.time_remaining_seconds);
    alive.touch();
    await until(() => alive.session.expires_at > opened.expires_at);
    assert.ok(alive.remaining >= opened.time_remaining_seconds - 1);
  });

  test("a WSGI server is polled, and nothing is missed", { skip: !CHAT_WSGI_URL }, async (t) => {
    const client = clientOf(CHAT_WSGI_URL);
    const session = await open(client);
    const { now, conversation } = follow(t, session);
    await until(() => now().connection === "open");
    await conversation.post("one two");
    await until(() => now().run?.status === "succeeded");
    assert.deepEqual(words(now()), ["one two", "one two"]);
    const types = [];
    for await (const { type } of await session.messages.post({ content: "three", delivery: "stream" })) types.push(type);
    assert.deepEqual(types, ["message", "run.started", "message", "run.succeeded"]);
  });
});
