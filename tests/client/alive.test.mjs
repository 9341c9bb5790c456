import assert from "node:assert/strict";
import { describe, test as alone } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";
import { scripted, until } from "./scripted.mjs";

const handleOf = (server) => createClient({ baseUrl: server.url, tabId: "me" }).session(server.id);

/** Watch a session, and keep all that is told of it. */
function watch(test, server, options = {}) {
  const alive = handleOf(server).keepAlive(options);
  const told = [];
  for (const type of ["tick", "expiring", "expired", "ended", "session", "error"]) alive.on(type, (detail) => told.push([type, detail]));
  test.after(() => alive.close());
  return { alive, told, of: (type) => told.filter(([name]) => name === type).map(([, detail]) => detail) };
}

const beats = (server) => server.requests.filter(({ path }) => path.endsWith("/heartbeat")).length;

/** The same, by a conversation that follows it. */
async function follow(test, server, options) {
  const conversation = handleOf(server).follow();
  conversation.subscribe(() => {});
  test.after(() => conversation.close());
  await until(() => conversation.getSnapshot().connection === "open");
  return watch(test, server, { ...options, events: conversation });
}

const warn = (server, minutes, more = {}) => server.record("session.expiring", { expires_at: server.session.expires_at, threshold_minutes: minutes, ...more });
const asks = (server) => server.requests.filter(({ method, path }) => method === "GET" && path === `sessions/${server.id}`).length;

/** A server whose clock runs: sessions have a deadline. */
async function mortal(test, seconds, session = {}) {
  const server = await scripted(test, session);
  let deadline = performance.now() + seconds * 1000;
  Object.defineProperty(server.session, "time_remaining_seconds", { enumerable: true, get: () => Math.max(0, (deadline - performance.now()) / 1000) });
  Object.defineProperty(server.session, "expires_at", { enumerable: true, get: () => new Date(performance.timeOrigin + deadline).toISOString() });
  if (!session.status) Object.defineProperty(server.session, "status", { enumerable: true, get: () => (deadline > performance.now() ? "active" : "expired") });
  server.extend = (more) => (deadline = performance.now() + more * 1000);
  return server;
}

alone("the local clock does not matter", async (t) => {
  const server = await mortal(t, 100);
  t.mock.method(Date, "now", () => 0);
  const { alive, of } = watch(t, server);
  await until(() => of("tick").length);
  assert.equal(alive.remaining, 100);
});

alone("where the wall clock jumps, the machine slept, and the server is asked", async (t) => {
  const server = await mortal(t, 100);
  const { of } = watch(t, server);
  await until(() => of("tick").length === 1);
  server.extend(500);
  const real = Date.now;
  t.mock.method(Date, "now", () => real() + 3_600_000);
  await until(() => of("tick").some(({ remaining }) => remaining > 490));
});

alone("a machine that wakes up without a connection counts on as if it had not slept, and asks until it knows", async (t) => {
  const server = await mortal(t, 100);
  const { alive, of } = watch(t, server);
  await until(() => of("tick").length === 1);
  await server.stop();
  const real = Date.now;
  t.mock.method(Date, "now", () => real() + 60_000);
  await until(() => alive.remaining <= 40);
  assert.ok(alive.remaining > 30);
  await server.start();
  server.extend(500);
  await until(() => alive.remaining > 490);
  assert.equal(of("error").length, 0);
});

// They mostly wait, so they may wait together.
describe("keeping alive", { concurrency: true }, () => {
  const test = alone;

  test("it counts down each second, and tells when the end is near and when it is there", async (t) => {
    const server = await mortal(t, 3.4);
    const { of } = watch(t, server, { warning: 2 });
    await until(() => of("expired").length);
    assert.equal(of("expired")[0].status, "expired");
    const remaining = of("tick").map((tick) => tick.remaining);
    assert.deepEqual([...new Set(remaining)], [4, 3, 2, 1, 0]);
    assert.equal(of("expiring").length, 1);
    assert.ok(of("expiring")[0].remaining <= 2);
    assert.deepEqual(of("tick").filter(({ isOver }) => isOver).length, 1);
    assert.equal(of("tick").at(-1).isOver, true);
  });

  test("whoever is near the end asks first: another tab may have kept it alive", async (t) => {
    const server = await mortal(t, 4.2);
    const { of } = watch(t, server, { warning: 1 });
    await until(() => of("tick").length === 2);
    server.extend(60);
    await until(() => of("tick").some(({ remaining }) => remaining > 50));
    assert.equal(of("expiring").length, 0);
  });

  test("where the deadline has moved, it has not expired", async (t) => {
    const server = await mortal(t, 1.2);
    const { of } = watch(t, server, { warning: 5 });
    await until(() => of("expiring").length);
    server.extend(30);
    await until(() => of("tick").some(({ remaining }) => remaining > 20));
    assert.equal(of("expired").length, 0);
  });

  test("each of several thresholds is told once, with what is left then", async (t) => {
    const server = await mortal(t, 4.4);
    const { of } = watch(t, server, { warning: [3, 1], heartbeats: false });
    await until(() => of("expired").length);
    assert.deepEqual(of("expiring").map(({ threshold, isNear }) => [threshold, isNear]), [[3, true], [1, true]]);
    assert.ok(of("expiring").every(({ threshold, remaining }) => remaining <= threshold && remaining > 0));
  });

  test("of thresholds that have passed unseen, one warning tells the nearest", async (t) => {
    const server = await mortal(t, 50);
    const { of } = watch(t, server, { warning: [10, 60, 300] });
    await until(() => of("tick").length > 1);
    assert.deepEqual(of("expiring").map(({ threshold }) => threshold), [60]);
  });

  test("before another deadline it warns anew", async (t) => {
    const server = await mortal(t, 50);
    const { alive, of } = watch(t, server, { warning: 60 });
    await until(() => of("expiring").length === 1);
    server.extend(55);
    alive.update({ ...server.session });
    await until(() => of("expiring").length === 2);
    alive.update({ ...server.session });
    await sleep(1_200);
    assert.equal(of("expiring").length, 2);
  });

  test("warnings that the log tells of are told once each, and none that was told before", async (t) => {
    const server = await mortal(t, 62.5);
    const { of } = await follow(t, server);
    await until(() => of("expiring").length === 1);
    warn(server, 5);
    warn(server, 1);
    await until(() => of("expiring").length === 2);
    warn(server, 1);
    warn(server, 5);
    await sleep(2_500);
    assert.deepEqual(of("expiring").map(({ threshold }) => threshold), [300, 60]);
  });

  test("a warning that is heard of after its time was told tells nothing new", async (t) => {
    const server = await mortal(t, 50);
    const { of } = await follow(t, server, { warning: 900 });
    await until(() => of("expiring").length === 1);
    warn(server, 5);
    warn(server, 1);
    await sleep(2_500);
    assert.deepEqual(of("expiring").map(({ threshold }) => threshold), [900]);
  });

  test("a warning before a deadline that has moved since is none", async (t) => {
    const server = await mortal(t, 50);
    const { of } = await follow(t, server, { warning: 10 });
    await until(() => of("tick").length);
    const { expires_at } = server.session;
    server.extend(55);
    warn(server, 1, { expires_at });
    await until(() => of("session").some((session) => session.expires_at > expires_at));
    await sleep(1_200);
    assert.equal(of("expiring").length, 0);
    assert.ok(of("tick").every(({ isNear }) => !isNear));
  });

  test("a stream can tell it as well, and what is recorded near the end has the deadline looked at", async (t) => {
    const server = await mortal(t, 50);
    const stream = handleOf(server).stream();
    t.after(() => stream.abort());
    const { of } = watch(t, server, { events: stream });
    await until(() => of("expiring").length && stream.state === "open");
    server.extend(500);
    server.message("user", "I am still there, on another device.");
    await until(() => of("tick").some(({ remaining, isNear }) => remaining > 490 && !isNear));
  });

  test("what is recorded far from the end asks nobody", async (t) => {
    const server = await mortal(t, 5_000);
    const stream = handleOf(server).stream();
    t.after(() => stream.abort());
    const { of } = watch(t, server, { events: stream });
    await until(() => of("tick").length && stream.state === "open");
    const before = asks(server);
    server.message("user", "There is time.");
    await sleep(2_500);
    assert.equal(asks(server), before);
  });

  test("near the end it looks now and then: heartbeats of another tab leave no event", async (t) => {
    const server = await mortal(t, 30);
    const { of } = watch(t, server, { warning: 60 });
    await until(() => of("expiring").length);
    server.extend(500);
    await until(() => of("tick").some(({ remaining, isNear }) => remaining > 490 && !isNear));
  });

  test("somebody who is there keeps it alive, and nobody does not", async (t) => {
    const server = await mortal(t, 60);
    const { alive, of } = watch(t, server, { every: 500 });
    await sleep(2_200);
    assert.equal(beats(server), 0);
    alive.touch();
    await until(() => beats(server) === 1);
    await sleep(2_200);
    assert.equal(beats(server), 1);
    assert.ok(of("session").length >= 2);
  });

  test("what the server counted as activity anyway needs no heartbeat", async (t) => {
    const server = await mortal(t, 60);
    const { alive } = watch(t, server, { every: 500 });
    await sleep(700);
    alive.touch();
    alive.update({ ...alive.session, last_activity_at: "2026-01-02T00:00:00Z" });
    await sleep(1_200);
    assert.equal(beats(server), 0);
  });

  test("a session in other hands gets no heartbeats", async (t) => {
    for (const [client, expected] of [["somebody", 0], ["me", 1]]) {
      const server = await mortal(t, 60, { strategy: "active_tab_wins", client });
      const { alive } = watch(t, server, { every: 10 });
      await until(() => alive.session);
      alive.touch();
      await sleep(1_300);
      assert.equal(beats(server), expected);
      alive.close();
    }
  });

  test("a heartbeat that fails is not repeated at once", async (t) => {
    const server = await mortal(t, 60);
    server.faults = Array.from({ length: 9 }, () => ({ when: ({ path }) => path.endsWith("/heartbeat"), lose: "before" }));
    const { alive } = watch(t, server, { every: 2_500 });
    await until(() => alive.session);
    alive.touch();
    await until(() => beats(server) === 1);
    await sleep(1_500);
    assert.equal(beats(server), 1);
  });

  test("it only counts down where it is told to", async (t) => {
    const server = await mortal(t, 60);
    const { alive } = watch(t, server, { every: 10, heartbeats: false });
    alive.touch();
    await sleep(1_300);
    assert.equal(beats(server), 0);
  });

  test("a refused heartbeat is told, and the session looked at", async (t) => {
    const server = await mortal(t, 60);
    const { alive, of } = watch(t, server, { every: 10 });
    await until(() => alive.session);
    await sleep(2_100);
    server.faults = [{ when: ({ path }) => path.endsWith("/heartbeat"), status: 409, body: { code: "session_ended" } }];
    Object.defineProperty(server.session, "status", { value: "ended" });
    alive.touch();
    await until(() => of("ended").length);
    assert.equal(of("error")[0].code, "session_ended");
  });

  test("a session that is gone ends it", async (t) => {
    const alive = createClient({ baseUrl: (await scripted(t)).url }).session("nobody").keepAlive();
    const error = await new Promise((resolve) => alive.on("error", resolve));
    assert.equal(error.code, "session_not_found");
  });

  test("a server that is away is asked until it is back", async (t) => {
    const server = await mortal(t, 60);
    await server.stop();
    const { of } = watch(t, server);
    await sleep(1_200);
    await server.start();
    await until(() => of("tick").length);
    assert.equal(of("error").length, 0);
  });

  test("closing frees everything", async (t) => {
    const server = await mortal(t, 60);
    const controller = new AbortController();
    const { of } = watch(t, server, { signal: controller.signal });
    await until(() => of("tick").length);
    controller.abort();
    const count = of("tick").length;
    await sleep(1_200);
    assert.equal(of("tick").length, count);
  });

  test("what was over from the beginning says so", async (t) => {
    const server = await scripted(t, { status: "ended" });
    const { of } = watch(t, server, { session: server.session });
    await until(() => of("ended").length);
    assert.deepEqual(of("tick").map(({ isOver }) => isOver), [true]);
  });
});
