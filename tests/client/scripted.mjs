// A server that speaks the contract from memory, and whose connections break where a test wants them to.

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const LIVE = ["created", "active", "resumed"];

export class ScriptedServer {
  requests = []; // {method, url, headers, body}
  plans = []; // what becomes of the next streams: {status, cutAfter, mute, chop, type}
  faults = []; // what becomes of the next other calls that a fault's `when` fits: {when, status, body, headers, lose}
  sockets = new Set();
  streams = new Set();
  frames = []; // events and deltas in their one order
  messages = new Map();
  runs = [];
  answers = new Map(); // by external_id
  pace = 5; // milliseconds a word
  #index = 0;

  constructor(session = {}) {
    this.session = {
      id: "5f0c6f8e-0000-4000-8000-000000000001", status: "active", strategy: "multiple", client: null, agent: "echo",
      last_sequence: 0, time_remaining_seconds: 1800, last_activity_at: "2026-01-01T00:00:00Z",
      timeout: { mode: "standard", timeout_minutes: 30, max_duration_minutes: 720, warning_threshold_minutes: 5, auto_renew: true },
      ...session,
    };
    this.record("session.created", {});
  }

  get id() {
    return this.session.id;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/api/chat/`;
  }

  async start() {
    this.server = createServer((request, response) => void this.#answer(request, response));
    this.server.on("connection", (socket) => {
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
    });
    await new Promise((resolve) => this.server.listen(this.port ?? 0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    return this;
  }

  /** As a process that is killed: every connection breaks. What is stored stays. */
  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  cut() {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  // ------------------------------------------------------------------------------------------------------ the log

  record(type, data) {
    const sequence = (this.session.last_sequence += 1);
    const event = { sequence, type, created_at: new Date().toISOString(), data };
    if (type === "message") data.sequence = sequence;
    this.#append({ id: String(sequence), type, sequence, index: -1, body: event });
    return event;
  }

  message(role, content, more = {}) {
    const message = { external_id: null, role, content, parts: [], metadata: {}, run: null, token_count: null, created_at: new Date().toISOString(), edited_at: null, ...more };
    this.record("message", message);
    this.messages.set(message.sequence, message);
    return message;
  }

  edit(sequence, content) {
    const edited = { ...this.messages.get(sequence), content, edited_at: new Date().toISOString() };
    this.messages.set(sequence, edited);
    return this.record("message.edited", edited);
  }

  withdraw(sequence) {
    this.messages.delete(sequence);
    return this.record("message.deleted", { sequence });
  }

  delta(run, text) {
    const sequence = this.session.last_sequence;
    const index = run.index++;
    this.#append({ id: `${sequence}.${index}`, type: "message.delta", sequence, index, body: { run: run.id, index, text } });
  }

  begin(input, superseded = []) {
    const run = { id: `run-${this.runs.length + 1}`, status: "running", error: null, input_sequence: input, output_sequence: null, attempt: 1, index: 0 };
    this.runs.push(run);
    for (const sequence of superseded) this.messages.delete(sequence);
    this.record("run.started", { run: run.id, input_sequence: input, attempt: 1, ...(superseded.length ? { supersedes: superseded } : {}) });
    return run;
  }

  finish(run, content, status = "succeeded", metadata = {}) {
    const output = content ? this.message("assistant", content, { run: run.id, metadata }).sequence : null;
    Object.assign(run, { status, output_sequence: output });
    this.record(`run.${status}`, { run: run.id, output_sequence: output });
  }

  #append(frame) {
    this.frames.push(frame);
    for (const stream of this.streams) stream.pump();
  }

  /** What comes after the id of a frame. */
  #after(id) {
    const [sequence, index = -1] = id.split(".").map(Number);
    const isLater = (frame) => frame.sequence > sequence || (frame.sequence === sequence && frame.index > index);
    const first = this.frames.findIndex(isLater);
    return first < 0 ? this.frames.length : first;
  }

  // --------------------------------------------------------------------------------------------------------- HTTP

  async #answer(request, response) {
    let text = "";
    for await (const part of request.setEncoding("utf8")) text += part;
    const url = new URL(request.url, this.url);
    const body = text ? JSON.parse(text) : undefined;
    const call = { method: request.method, path: url.pathname.replace("/api/chat/", ""), query: url.searchParams, headers: request.headers, body };
    this.requests.push(call);
    const fault = this.faults.find(({ when }) => when(call));
    if (fault) this.faults.splice(this.faults.indexOf(fault), 1);
    if (fault?.status) return json(response, fault.status, fault.body ?? {}, fault.headers);
    if (fault?.lose === "before") return request.socket.resetAndDestroy();
    if (fault?.lose === "after") response.writeHead = () => request.socket.resetAndDestroy();
    await this.#route(call, response);
  }

  async #route(call, response) {
    const [, id, what, which] = call.path.split("/");
    if (id !== undefined && id !== this.id) return json(response, 404, { code: "session_not_found", detail: "No." });
    const route = `${call.method} ${what ?? ""}`;
    if (route === "GET stream") return this.#stream(call, response);
    if (route === "POST messages") return this.#post(call, response);
    if (route === "POST runs") return this.#runs(call, response, which);
    const answers = {
      "GET ": () => this.session,
      "POST heartbeat": () => Object.assign(this.session, { last_activity_at: new Date().toISOString() }),
      "GET messages": () => this.#page(call.query, [...this.messages.values()].sort((a, b) => a.sequence - b.sequence), "messages"),
      "GET runs": () => ({ results: [...this.runs].reverse().slice(0, Number(call.query.get("limit") ?? 20)), next: null }),
      "GET events": () => this.#events(call.query, response),
    };
    const answer = answers[route];
    return answer ? json(response, 200, await answer()) : json(response, 405, { code: "method_not_allowed" });
  }

  #page(query, all, name) {
    const limit = Number(query.get("limit") ?? 50);
    const [after, before] = [query.get("after"), query.get("before")];
    const within = all.filter(({ sequence }) => (after === null || sequence > after) && (before === null || sequence < before));
    const page = after === null ? within.slice(-limit) : within.slice(0, limit);
    return { [name]: page, has_more: within.length > page.length, cursors: { before: page[0]?.sequence ?? null, after: page.at(-1)?.sequence ?? null } };
  }

  async #events(query, response) {
    const until = performance.now() + Number(query.get("wait") ?? 0) * 1000;
    const page = () => this.#page(query, this.frames.filter(({ index }) => index < 0).map(({ body }) => body), "events");
    while (!page().events.length && LIVE.includes(this.session.status) && performance.now() < until && !response.destroyed) await sleep(10);
    return page();
  }

  #post(call, response) {
    const { content, external_id: name, delivery = "wait" } = call.body;
    if (this.answers.has(name)) return json(response, 200, this.answers.get(name));
    const message = this.message("user", content, { external_id: name });
    const answer = { message, session: this.session };
    this.answers.set(name, answer);
    if (delivery === "store") return json(response, 201, answer);
    answer.run = this.begin(message.sequence);
    void this.#echo(answer.run, content);
    if (delivery === "background") return json(response, 202, answer);
    this.#open(call, response, this.#after(String(message.sequence - 1)), { run: answer.run.id });
  }

  #runs(call, response, which) {
    if (which) {
      const run = this.runs.find(({ id }) => id === which);
      if (run.status === "running") this.finish(run, run.said, "cancelled", { cut_short: "cancelled" });
      return json(response, 202, run);
    }
    const old = this.runs.at(-1);
    const question = this.messages.get(old.input_sequence);
    const run = this.begin(question.sequence, old.output_sequence ? [old.output_sequence] : []);
    void this.#echo(run, `${question.content} again`);
    if (call.body.delivery === "background") return json(response, 202, { message: question, run, session: this.session });
    this.#open(call, response, this.#after(String(run.sequence ?? this.session.last_sequence - 1)), { run: run.id });
  }

  async #echo(run, content) {
    run.said = "";
    for (const word of content.match(/\s*\S+/g) ?? []) {
      await sleep(this.pace);
      if (run.status !== "running") return;
      run.said += word;
      this.delta(run, word);
    }
    this.finish(run, content);
  }

  #stream(call, response) {
    const id = call.headers["last-event-id"] ?? call.query.get("after") ?? String(this.session.last_sequence);
    const next = this.#after(id);
    if (!LIVE.includes(this.session.status) && next === this.frames.length) return void response.writeHead(204).end();
    this.#open(call, response, next, {});
  }

  #open(call, response, next, { run }) {
    const plan = this.plans.shift() ?? {};
    if (plan.status) return json(response, plan.status, plan.body ?? {}, plan.headers);
    const { socket } = response;
    response.writeHead(200, { "Content-Type": plan.type ?? "text/event-stream" });
    response.flushHeaders();
    let budget = plan.cutAfter ?? Infinity;
    const write = (bytes) => {
      if (plan.mute || socket.destroyed) return;
      for (const piece of plan.chop ? [...bytes].map((byte) => Uint8Array.of(byte)) : [bytes.subarray(0, budget)]) response.write(piece);
      budget -= bytes.length;
      if (budget < 0) socket.end(() => setTimeout(() => socket.resetAndDestroy(), 5)); // what is written arrives; the rest never does
    };
    const stream = {
      pump: () => {
        while (next < this.frames.length && budget >= 0) {
          const frame = this.frames[next++];
          write(Buffer.from(`id: ${frame.id}\nevent: ${frame.type}\ndata: ${JSON.stringify(frame.body)}\n\n`));
          if (run && /^run\.(succeeded|failed|cancelled)$/.test(frame.type)) return void response.end();
        }
        if (next === this.frames.length && !LIVE.includes(this.session.status)) response.end();
      },
      comment: () => write(Buffer.from(": \n\n")),
    };
    this.streams.add(stream);
    response.on("close", () => this.streams.delete(stream));
    stream.pump();
  }
}

function json(response, status, body, headers = {}) {
  response.writeHead(status, { "Content-Type": status < 400 ? "application/json" : "application/problem+json", ...headers });
  response.end(JSON.stringify(body));
}

/** A server that a test has to itself. */
export async function scripted(test, session) {
  const server = await new ScriptedServer(session).start();
  test.after(() => server.stop());
  return server;
}

/** Wait for something to be true. */
export async function until(condition, what = condition) {
  for (const start = performance.now(); performance.now() - start < 10_000; await sleep(5)) {
    const value = await condition();
    if (value) return value;
  }
  throw new Error(`It never came true: ${what}`);
}
