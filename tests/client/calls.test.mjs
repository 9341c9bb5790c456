import assert from "node:assert/strict";
import { test } from "node:test";

import { ChatError, NetworkError, createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";
import { scripted } from "./scripted.mjs";

/** A client whose requests are kept and answered from a list. */
function recorded(answers = [], options = {}) {
  const calls = [];
  const fetch = async (url, { method, headers, body }) => {
    calls.push({ method, url, headers, body: body && JSON.parse(body) });
    const { status = 200, ...answer } = answers.shift() ?? {};
    return new Response(status === 204 ? null : JSON.stringify(answer), { status });
  };
  return { client: createClient({ baseUrl: "/api", fetch, ...options }), calls };
}

test("each call is the contract's", async () => {
  const { client, calls } = recorded();
  const { sessions } = client;
  const session = client.session("a/b");
  const made = [
    [() => sessions.open({ agent: "echo" }), "POST", "sessions", { agent: "echo" }],
    [() => sessions.list({ status: "active", limit: 5, search: "" }), "GET", "sessions?status=active&limit=5"],
    [() => sessions.get("x"), "GET", "sessions/x"],
    [() => sessions.update("x", { title: "T" }), "PATCH", "sessions/x", { title: "T" }],
    [() => sessions.delete("x"), "DELETE", "sessions/x"],
    [() => sessions.resume("x", { max_messages: 1 }), "POST", "sessions/x/resume?max_messages=1", {}],
    [() => sessions.heartbeat("x"), "POST", "sessions/x/heartbeat", {}],
    [() => sessions.renew("x"), "POST", "sessions/x/renew", {}],
    [() => sessions.changeTimeout("x", { timeout_minutes: null }), "PATCH", "sessions/x/timeout", { timeout_minutes: null }],
    [() => sessions.end("x", "done"), "POST", "sessions/x/end", { reason: "done" }],
    [() => sessions.fork("x", { at: 3 }), "POST", "sessions/x/fork", { at: 3 }],
    [() => sessions.children("x"), "GET", "sessions/x/children"],
    [() => sessions.summary("x", { tree: true }), "GET", "sessions/x/summary?tree=true"],
    [() => sessions.state("x"), "GET", "sessions/x/state"],
    [() => sessions.patchState("x", { a: null }), "PATCH", "sessions/x/state", { a: null }],
    [() => sessions.context("x", { max_tokens: 10 }), "GET", "sessions/x/context?max_tokens=10"],
    [() => session.messages.list({ before: 7 }), "GET", "sessions/a%2Fb/messages?before=7"],
    [() => session.messages.get(4), "GET", "sessions/a%2Fb/messages/4"],
    [() => session.messages.edit(4, "new"), "PATCH", "sessions/a%2Fb/messages/4", { content: "new" }],
    [() => session.messages.withdraw(4), "DELETE", "sessions/a%2Fb/messages/4"],
    [() => session.events.list({ after: 0, wait: 5 }), "GET", "sessions/a%2Fb/events?after=0&wait=5"],
    [() => session.events.record("app.seen", { a: 1 }), "POST", "sessions/a%2Fb/events", { type: "app.seen", data: { a: 1 } }],
    [() => session.runs.list(), "GET", "sessions/a%2Fb/runs"],
    [() => session.runs.get("r"), "GET", "sessions/a%2Fb/runs/r"],
    [() => session.runs.cancel("r"), "POST", "sessions/a%2Fb/runs/r/cancel", {}],
    [() => session.runs.again({ inputSequence: 2 }), "POST", "sessions/a%2Fb/runs", { input_sequence: 2 }],
  ];
  for (const [call, method, path, body] of made) {
    await call();
    const { headers, ...sent } = calls.at(-1);
    assert.deepEqual(sent, { method, url: `/api/${path}`, body });
    assert.match(headers["X-Chat-Client"], /^[0-9a-f]{24}$/);
  }
  assert.equal(new Set(calls.map(({ headers }) => headers["X-Chat-Client"])).size, 1);
  assert.equal(sessions.exportUrl("x", "markdown"), "/api/sessions/x/export?as=markdown");
});

test("a call brings the headers, the tab's name and the last sequence that it is given", async () => {
  let token = 0;
  const { client, calls } = recorded([], { headers: async () => ({ Authorization: `Token ${++token}` }), tabId: "tab-7" });
  await client.sessions.get("x");
  await client.sessions.update("x", { title: "" }, { ifMatch: 12 });
  assert.deepEqual(calls.map(({ headers }) => headers.Authorization), ["Token 1", "Token 2"]);
  assert.equal(calls[1].headers["X-Chat-Client"], "tab-7");
  assert.equal(calls[1].headers["If-Match"], '"12"');
  assert.equal(await client.tabId(), "tab-7");
});

test("two clients of one process have names of their own", async () => {
  assert.notEqual(await createClient().tabId(), await createClient().tabId());
});

test("a refusal tells its status, its code and its body", async (t) => {
  const server = await scripted(t);
  server.faults = [{ when: () => true, status: 400, body: { code: "invalid_request", detail: "No.", errors: { title: ["Too long."], tags: ["Not a list."] } }, headers: { "Retry-After": "3" } }];
  const call = createClient({ baseUrl: server.url }).sessions.get(server.id);
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof ChatError && !(error instanceof NetworkError));
    assert.deepEqual([error.status, error.code, error.message, error.retryAfter], [400, "invalid_request", "No.", 3]);
    assert.equal(error.explanation, "Too long. Not a list.");
    return true;
  });
});

test("a proxy's page is a refusal, too", async () => {
  const fetch = async () => new Response("<h1>Bad Gateway</h1>", { status: 502 });
  await assert.rejects(createClient({ fetch }).sessions.get("x"), { status: 502, code: "http_502" });
});

test("no connection, a broken one, and no answer in time are network errors", async (t) => {
  const server = await scripted(t);
  const client = createClient({ baseUrl: server.url });
  server.faults = [{ when: () => true, lose: "before" }];
  await assert.rejects(client.sessions.get(server.id), NetworkError);
  server.faults = [{ when: () => true, lose: "after" }];
  await assert.rejects(client.sessions.get(server.id), { name: "NetworkError", status: 0, code: "network_error" });
  await assert.rejects(client.session(server.id).events.list({ after: 1, wait: 20 }, { timeout: 50 }), NetworkError);
  await server.stop();
  await assert.rejects(client.sessions.get(server.id), NetworkError);
  await server.start();
});

test("what a signal gives up ends with the signal's reason", async (t) => {
  const server = await scripted(t);
  const client = createClient({ baseUrl: server.url });
  const controller = new AbortController();
  const call = client.session(server.id).events.list({ after: 1, wait: 20 }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 30);
  await assert.rejects(call, { name: "AbortError" });
  await assert.rejects(client.sessions.get(server.id, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("a message whose answer is lost is sent again, and stored once", async (t) => {
  const server = await scripted(t);
  const isPost = ({ method }) => method === "POST";
  server.faults = [{ when: isPost, lose: "before" }, { when: isPost, lose: "after" }];
  const { message } = await createClient({ baseUrl: server.url }).session(server.id).messages.post({ content: "once", delivery: "store" });
  assert.equal(message.content, "once");
  assert.equal(server.messages.size, 1);
  const posts = server.requests.filter(isPost);
  assert.equal(posts.length, 3);
  assert.equal(new Set(posts.map(({ body }) => body.external_id)).size, 1);
});

test("a message that fails nevertheless names itself, for another try", async (t) => {
  const server = await scripted(t);
  const isPost = ({ method }) => method === "POST";
  server.faults = Array.from({ length: 3 }, () => ({ when: isPost, lose: "after" }));
  const { messages } = createClient({ baseUrl: server.url }).session(server.id);
  const error = await messages.post({ content: "once", delivery: "store" }).catch((error) => error);
  assert.ok(error instanceof NetworkError);
  await messages.post({ content: "once", delivery: "store", externalId: error.externalId });
  assert.equal(server.messages.size, 1);
});

test("a refused message is not sent again", async (t) => {
  const server = await scripted(t);
  server.faults = [{ when: ({ method }) => method === "POST", status: 503, body: { code: "agent_unavailable" } }];
  const post = createClient({ baseUrl: server.url }).session(server.id).messages.post({ content: "x", externalId: "mine" });
  await assert.rejects(post, { code: "agent_unavailable", externalId: "mine" });
  assert.equal(server.requests.length, 1);
});

test("pages follow each other", async () => {
  const pages = [{ results: [{ id: 1 }, { id: 2 }], next: "c" }, { results: [{ id: 3 }], next: null }];
  const { client, calls } = recorded(pages);
  const found = [];
  for await (const { id } of client.sessions.all({ status: "active" })) found.push(id);
  assert.deepEqual(found, [1, 2, 3]);
  assert.deepEqual(calls.map(({ url }) => url), ["/api/sessions?status=active", "/api/sessions?status=active&cursor=c"]);
});

test("all messages and all events are read page by page", async (t) => {
  const server = await scripted(t);
  for (let n = 0; n < 5; n += 1) server.message("user", `m${n}`);
  const session = createClient({ baseUrl: server.url }).session(server.id);
  const contents = [];
  for await (const { content } of session.messages.all({ limit: 2 })) contents.push(content);
  assert.deepEqual(contents, ["m0", "m1", "m2", "m3", "m4"]);
  const sequences = [];
  for await (const { sequence } of session.events.all({ limit: 4 })) sequences.push(sequence);
  assert.deepEqual(sequences, [1, 2, 3, 4, 5, 6]);
});
