import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";
import { scripted, until } from "./scripted.mjs";

/** Follow a session, and keep every snapshot. */
function follow(test, server, options = {}) {
  const conversation = createClient({ baseUrl: server.url }).session(server.id).follow({ minDelay: 10, maxDelay: 50, ...options });
  const snapshots = [];
  const leave = conversation.subscribe(() => snapshots.push(conversation.getSnapshot()));
  test.after(() => conversation.close());
  return { conversation, snapshots, leave, now: () => conversation.getSnapshot() };
}

const words = ({ messages }) => messages.map(({ content, isPartial }) => (isPartial ? `${content}…` : content));
const shows = (now, ...expected) => until(() => words(now()).join("|") === expected.join("|"), () => words(now())).catch(() => assert.deepEqual(words(now()), expected));

test("a conversation shows what was said, and what is said from then on", async (t) => {
  const server = await scripted(t);
  server.message("user", "one");
  const { now } = follow(t, server);
  assert.deepEqual([now().isLoaded, now().connection, now().messages], [false, "connecting", []]);
  await shows(now, "one");
  assert.equal(now().session.id, server.id);
  server.message("user", "two");
  await shows(now, "one", "two");
  assert.equal(now().connection, "open");
});

test("a reload in mid-answer shows at once what was said so far", async (t) => {
  const server = await scripted(t);
  const question = server.message("user", "why?");
  const run = server.begin(question.sequence);
  server.delta(run, "Be");
  server.record("app.note", {});
  server.delta(run, "cause");
  const { now } = follow(t, server);
  await shows(now, "why?", "Because…");
  assert.equal(now().isAnswering, true);
  const partial = now().messages[1];
  assert.deepEqual([partial.role, partial.run, partial.sequence], ["assistant", run.id, null]);
  server.delta(run, " so");
  await shows(now, "why?", "Because so…");
  const { key } = now().messages[1];
  server.finish(run, "Because so.");
  await shows(now, "why?", "Because so.");
  assert.equal(now().messages[1].key, key);
  await until(() => now().run.status === "succeeded");
  assert.equal(now().isAnswering, false);
});

test("a reload in mid-answer after an earlier answer to the same question shows the new one alone", async (t) => {
  const server = await scripted(t);
  const question = server.message("user", "why?");
  const first = server.begin(question.sequence);
  for (let n = 0; n < 3; n += 1) server.delta(first, "Old".repeat(50_000)); // more than comes in one go
  server.finish(first, "Old.");
  const second = server.begin(question.sequence, [first.output_sequence]);
  server.delta(second, "New");
  const { now, snapshots } = follow(t, server);
  await shows(now, "why?", "New…");
  server.finish(second, "New.");
  await shows(now, "why?", "New.");
  assert.ok(!snapshots.some((snapshot) => words(snapshot).join().includes("Old")));
});

test("a message in the middle of an answer ends what is being said before it", async (t) => {
  const server = await scripted(t);
  const question = server.message("user", "look it up");
  const run = server.begin(question.sequence);
  const { now } = follow(t, server);
  await until(() => now().connection === "open");
  server.delta(run, "I look");
  await shows(now, "look it up", "I look…");
  server.message("assistant", "I look.", { run: run.id, parts: [{ type: "tool_call", id: "1", name: "search", arguments: {} }] });
  server.message("tool", "found", { run: run.id });
  server.delta(run, "It is");
  await shows(now, "look it up", "I look.", "found", "It is…");
  server.finish(run, "It is there.");
  await shows(now, "look it up", "I look.", "found", "It is there.");
  assert.equal(new Set(now().messages.map(({ key }) => key)).size, 4);
});

test("edited and withdrawn messages are", async (t) => {
  const server = await scripted(t);
  const [one, two] = [server.message("user", "one"), server.message("user", "two")];
  const { now } = follow(t, server);
  await shows(now, "one", "two");
  server.edit(one.sequence, "ONE");
  await shows(now, "ONE", "two");
  assert.ok(now().messages[0].edited_at);
  server.withdraw(two.sequence);
  await shows(now, "ONE");
});

test("an answer that is given again takes the old one's place", async (t) => {
  const server = await scripted(t);
  const { now, conversation } = follow(t, server);
  await until(() => now().isLoaded);
  await conversation.post("why?");
  await shows(now, "why?", "why?");
  await until(() => now().run.status === "succeeded");
  await conversation.again();
  await shows(now, "why?", "why? again");
});

test("what is posted is there at once, once", async (t) => {
  const server = await scripted(t);
  const { now, conversation, snapshots } = follow(t, server);
  await until(() => now().connection === "open");
  const { message } = await conversation.post({ content: "hello there", metadata: { a: 1 } });
  assert.deepEqual(words(now())[0], "hello there");
  assert.equal(now().isAnswering, true);
  await shows(now, "hello there", "hello there");
  await until(() => now().run.status === "succeeded");
  assert.ok(snapshots.every(({ messages }) => messages.filter(({ sequence }) => sequence === message.sequence).length <= 1));
  assert.ok(snapshots.some((snapshot) => words(snapshot).includes("hello…")));
});

test("a cancelled answer keeps what was said, and says that it was cut short", async (t) => {
  const server = await scripted(t);
  server.pace = 40;
  const { now, conversation } = follow(t, server);
  await until(() => now().connection === "open");
  await conversation.post("one two three four five six");
  await until(() => /^one two.*…$/.test(words(now()).at(-1)));
  await conversation.cancel();
  await until(() => now().run.status === "cancelled" && !now().messages.at(-1).isPartial);
  assert.equal(now().messages.at(-1).metadata.cut_short, "cancelled");
  assert.equal(now().isAnswering, false);
  await conversation.cancel();
  assert.equal(server.requests.filter(({ path }) => path.endsWith("/cancel")).length, 1);
});

test("an answer that fails with nothing to keep leaves nothing", async (t) => {
  const server = await scripted(t);
  const run = server.begin(server.message("user", "?").sequence);
  server.delta(run, "Well");
  const { now } = follow(t, server);
  await shows(now, "?", "Well…");
  server.finish(run, "", "failed");
  await until(() => now().run.status === "failed");
  assert.deepEqual(words(now()), ["?"]);
});

test("an answer whose connection is cut again and again is shown whole, and never twice", async (t) => {
  const server = await scripted(t);
  server.pace = 15;
  const { now, conversation, snapshots } = follow(t, server);
  await until(() => now().connection === "open");
  const said = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich";
  const cutting = setInterval(() => server.cut(), 35);
  while (!(await conversation.post({ content: said, externalId: "once" }).catch(() => null)));
  await until(() => now().run?.status === "succeeded");
  clearInterval(cutting);
  assert.deepEqual(words(now()), [said, said]);
  for (const snapshot of snapshots) {
    const partial = snapshot.messages.find(({ isPartial }) => isPartial);
    assert.ok(!partial || said.startsWith(partial.content), partial?.content);
  }
});

test("a session that ends elsewhere is seen to have ended", async (t) => {
  const server = await scripted(t);
  const { now } = follow(t, server);
  await until(() => now().connection === "open");
  server.session.status = "ended";
  server.record("session.ended", {});
  await until(() => now().session.status === "ended" && now().connection === "closed");
  assert.equal(now().error, null);
});

test("what nobody may see is an error", async (t) => {
  const server = await scripted(t);
  const conversation = createClient({ baseUrl: server.url }).session("nobody").follow();
  t.after(() => conversation.close());
  conversation.subscribe(() => {});
  await until(() => conversation.getSnapshot().error);
  assert.equal(conversation.getSnapshot().error.code, "session_not_found");
  assert.equal(conversation.getSnapshot().connection, "closed");
});

test("a server that is away at first is found", async (t) => {
  const server = await scripted(t);
  server.message("user", "one");
  await server.stop();
  const { now } = follow(t, server);
  await until(() => now().connection === "offline");
  await server.start();
  await shows(now, "one");
});

test("what was said earlier is loaded when it is asked for", async (t) => {
  const server = await scripted(t);
  for (let n = 0; n < 5; n += 1) server.message("user", `m${n}`);
  const { now, conversation } = follow(t, server, { pageSize: 2 });
  await shows(now, "m3", "m4");
  assert.equal(now().hasEarlier, true);
  await conversation.loadEarlier();
  await conversation.loadEarlier();
  assert.deepEqual(words(now()), ["m0", "m1", "m2", "m3", "m4"]);
  assert.equal(now().hasEarlier, false);
});

test("what was erased vanishes", async (t) => {
  const server = await scripted(t);
  const message = server.message("user", "secret");
  const { now } = follow(t, server);
  await shows(now, "secret");
  server.messages.set(message.sequence, { ...message, content: "" });
  server.record("content.erased", {});
  await shows(now, "");
});

test("a snapshot stays the same until something changes, and can't be changed", async (t) => {
  const server = await scripted(t);
  server.message("user", "one");
  const { now } = follow(t, server);
  await shows(now, "one");
  await until(() => now().connection === "open");
  const before = now();
  assert.equal(now(), before);
  server.message("user", "two");
  await shows(now, "one", "two");
  assert.notEqual(now(), before);
  assert.deepEqual(words(before), ["one"]);
  assert.equal(now().messages[0], before.messages[0]);
  assert.throws(() => before.messages.push({}), TypeError);
  assert.throws(() => (before.messages[0].content = ""), TypeError);
});

test("it is followed as long as somebody has subscribed", async (t) => {
  const server = await scripted(t);
  const { now, conversation, leave } = follow(t, server);
  await until(() => now().connection === "open");
  leave();
  const leaveAgain = conversation.subscribe(() => {}); // as React does in its strict mode
  assert.equal(now().connection, "open");
  await sleep(50);
  assert.equal(server.requests.filter(({ path }) => path.endsWith("/stream")).length, 1);
  leaveAgain();
  await until(() => server.streams.size === 0);
  server.message("user", "meanwhile");
  conversation.subscribe(() => {});
  await shows(now, "meanwhile");
});

test("a thousand pieces in one go are told once", async (t) => {
  const server = await scripted(t);
  const question = server.message("user", "?");
  const run = server.begin(question.sequence);
  for (let n = 0; n < 1000; n += 1) server.delta(run, "x");
  const { now, snapshots } = follow(t, server);
  await shows(now, "?", `${"x".repeat(1000)}…`);
  assert.ok(snapshots.length < 100, String(snapshots.length));
});
