// The conversations at the side: grouped by day, searched by the server, loaded page by page.

import { $, announce, arrange, h } from "./dom.js";
import { client, sessions } from "./link.js";
import { STATUS, agentTitle, ago, firstWords, fullTime, isLive, period } from "./words.js";
import { agentMark } from "./marks.js";

const PAGE = 30;

const rows = new Map(); // id → {session, deadline, node parts}
const groups = new Map(); // name → {node, list}
const opening = new Map(); // id → first words of a conversation without a title, null while they are fetched
const wanted = []; // ids whose first words are still to be fetched

let query = "";
let next = null;
let selected = null;
let asking = null;
let latest = null;
let onOpen = () => {};
let onNamed = () => {};

/** Wire the list up: `open(id)` when somebody chooses a conversation, `named(id)` when its first words are known. */
export function initSidebar({ open, named }) {
  onOpen = open;
  onNamed = named;
  $("more").addEventListener("click", loadMore);
  const search = $("search");
  let timer;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => find(search.value.trim()), 220);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") focusRow(0, event);
    else if (event.key === "Enter") {
      clearTimeout(timer);
      void find(search.value.trim());
    } else if (event.key === "Escape" && search.value) {
      search.value = "";
      clearTimeout(timer);
      void find("");
      event.stopPropagation();
    }
  });
  $("sessions").addEventListener("keydown", (event) => {
    const links = linksShown();
    const here = links.indexOf(document.activeElement);
    if (here < 0) return;
    if (event.key === "ArrowDown") focusRow(here + 1, event);
    else if (event.key === "ArrowUp" && here === 0) $("search").focus();
    else if (event.key === "ArrowUp") focusRow(here - 1, event);
  });
  setInterval(tick, 15_000);
}

const linksShown = () => [...$("sessions").querySelectorAll("a.row")];

function focusRow(index, event) {
  const link = linksShown()[index];
  if (!link) return;
  event.preventDefault();
  link.focus();
}

async function find(text) {
  if (text === query) return;
  query = text;
  await refresh();
  announce(rows.size ? `${rows.size}${next ? " or more" : ""} conversations` : "No conversation found");
}

/** Read the first page anew; what was loaded beyond it stays, unless the whole list is known now. */
export function refresh() {
  latest = read();
  return latest;
}

async function read() {
  asking?.abort();
  const { signal } = (asking = new AbortController());
  const text = query;
  let page;
  try {
    page = await sessions.list({ limit: PAGE, search: text }, { signal });
  } catch (error) {
    if (error.name === "AbortError") return latest; // whoever asked first gets the newer answer
    note(rows.size ? "" : "The list could not be loaded.");
    return null;
  }
  const fresh = new Set(page.results.map(({ id }) => id));
  const oldest = page.results.at(-1)?.last_activity_at ?? "";
  const isOther = text !== shownQuery;
  for (const [id, { session }] of rows) {
    if (!fresh.has(id) && (isOther || !page.next || session.last_activity_at >= oldest)) rows.delete(id);
  }
  if (isOther || !page.next || !next) next = page.next;
  shownQuery = text;
  page.results.forEach(put);
  render();
  return page.results;
}

let shownQuery = "";

async function loadMore() {
  const button = $("more");
  button.disabled = true;
  try {
    const page = await sessions.list({ limit: PAGE, search: query, cursor: next });
    next = page.next;
    const first = page.results.find(({ id }) => !rows.has(id));
    page.results.forEach(put);
    render();
    if (first) rows.get(first.id).link.focus();
  } catch (error) {
    note(error.message);
  } finally {
    button.disabled = false;
  }
}

/** Show what a session has become; one that the search does not match stays out. */
export function upsert(session) {
  if (!rows.has(session.id) && query) return;
  put(session);
  render();
}

export function drop(id) {
  rows.delete(id);
  render();
}

export function select(id) {
  selected = id;
  render();
}

/** The session of that id as the list knows it. */
export const known = (id) => rows.get(id)?.session ?? null;

function put(session) {
  const row = rows.get(session.id) ?? build(session);
  row.session = session;
  row.deadline = performance.now() + session.time_remaining_seconds * 1000;
  rows.set(session.id, row);
  if (!session.title && session.message_count) learnOpening(session.id);
}

function build({ id, agent }) {
  const title = h("span", { className: "row-title" });
  const time = h("time", { className: "row-time" });
  const status = h("span", { className: "row-status" });
  const open = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a tab or window of its own
    event.preventDefault();
    onOpen(id);
  };
  const link = h(
    "a",
    { className: "row", href: `?session=${id}`, onclick: open },
    agentMark(agent),
    h("span", { className: "row-main" }, h("span", { className: "row-top" }, title, time), status),
  );
  return { item: h("li", {}, link), link, title, time, status };
}

function draw(row) {
  const { session } = row;
  const isOver = !isLive(session.status) || performance.now() >= row.deadline;
  const status = isLive(session.status) && isOver ? "expired" : session.status;
  const words = session.title || opening.get(session.id) || `${agentTitle(session.agent)} conversation`;
  set(row.title, words);
  set(row.time, ago(session.last_activity_at));
  row.time.dateTime = session.last_activity_at;
  row.time.title = fullTime(session.last_activity_at);
  row.link.title = words.length > 34 ? words : "";
  const label = STATUS[status] ?? status;
  if (row.status.dataset.status !== status || !row.status.childNodes.length) {
    row.status.dataset.status = status;
    row.status.replaceChildren(h("span", { className: "dot", "aria-hidden": "true" }), `${label} · ${agentTitle(session.agent)}`);
  }
  row.link.classList.toggle("is-over", isOver);
  if (session.id === selected) row.link.setAttribute("aria-current", "page");
  else row.link.removeAttribute("aria-current");
}

const set = (node, text) => node.textContent === text || (node.textContent = text);

function render() {
  const byPeriod = new Map();
  const ordered = [...rows.values()].sort((a, b) => (a.session.last_activity_at < b.session.last_activity_at ? 1 : -1));
  for (const row of ordered) {
    draw(row);
    const name = period(row.session.last_activity_at);
    byPeriod.set(name, [...(byPeriod.get(name) ?? []), row.item]);
  }
  const focused = document.activeElement;
  const nodes = [];
  for (const [name, items] of byPeriod) {
    const group = groups.get(name) ?? makeGroup(name);
    arrange(group.list, items);
    nodes.push(group.node);
  }
  arrange($("sessions"), nodes);
  if (focused?.isConnected && focused !== document.activeElement && $("sessions").contains(focused)) focused.focus();
  $("more").hidden = !next;
  note(rows.size ? "" : query ? `Nothing found for “${query}”.` : "No conversations yet.");
}

function makeGroup(name) {
  const id = `group-${groups.size}`;
  const list = h("ul", { "aria-labelledby": id });
  const group = { list, node: h("section", { className: "group" }, h("h2", { id, className: "group-name" }, name), list) };
  groups.set(name, group);
  return group;
}

function note(text) {
  $("list-note").textContent = text;
  $("list-note").hidden = !text;
}

function tick() {
  if (!document.hidden) render(); // relative times move on, and deadlines pass
}

// A conversation without a title is named by its first words, which the list does not carry: fetched one at a time.
function learnOpening(id) {
  if (opening.has(id)) return;
  opening.set(id, null);
  wanted.push(id);
  if (wanted.length === 1) void fetchOpenings();
}

async function fetchOpenings() {
  while (wanted.length) {
    const id = wanted[0];
    try {
      const page = await client.session(id).messages.list({ after: 0, limit: 1 });
      if (page.messages[0]) opening.set(id, firstWords(page.messages[0].content));
      if (rows.has(id)) draw(rows.get(id));
      onNamed(id);
    } catch {
      opening.delete(id); // asked again when it next comes up
    }
    wanted.shift();
  }
}

/** The first words of a conversation, where they are known. */
export const openingOf = (id) => opening.get(id) ?? "";
