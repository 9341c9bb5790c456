// One message: its text, its state, and what can be done with it.

import { $, announce, h, icon, linkify, toast } from "./dom.js";
import { agentMark } from "./marks.js";
import { agentTitle, clockTime, fullTime } from "./words.js";

/** What all messages in view have in common: whose answers they are, whether own ones may be changed, who does it. */
export const setting = { agent: "", isEditable: false, handlers: {} };

/** Make an empty one: {role, message, entry, trouble, isEditing} and its nodes. */
export function build(role) {
  const bubble = { role, message: null, entry: null, trouble: "", isEditing: false };
  const speaker = { user: "You", assistant: agentTitle(setting.agent), system: "System", tool: "Tool" }[role] ?? role;
  bubble.body = h("div", { className: "bubble" });
  bubble.time = h("time", { className: "msg-time" });
  bubble.state = h("span", { className: "msg-state" });
  bubble.actions = h("div", { className: "msg-actions", role: "group", "aria-label": "Message actions" });
  bubble.problem = h("div", { className: "msg-trouble", hidden: true });
  bubble.node = h(
    "article",
    { className: "msg", data: { role }, onclick: () => setting.handlers.pick(bubble) },
    role === "user" || role === "system" ? null : agentMark(setting.agent),
    h(
      "div",
      { className: "msg-main" },
      h("span", { className: "sr-only" }, `${speaker}:`),
      bubble.body,
      bubble.problem,
      h("div", { className: "msg-foot" }, bubble.time, bubble.state, bubble.actions),
    ),
  );
  return bubble;
}

export function draw(bubble) {
  const { message, entry, node } = bubble;
  if (message) node.dataset.sequence = message.sequence;
  if (message?.external_id) node.dataset.externalId = message.external_id;
  node.dataset.state = entry ? entry.state : "stored";
  const content = message ? message.content : entry.content;
  if (!bubble.isEditing && bubble.shown !== content) {
    bubble.shown = content;
    bubble.body.replaceChildren(...linkify(content), ...files(message?.parts));
  }
  const instant = message?.created_at ?? entry.at;
  bubble.time.dateTime = instant;
  bubble.time.title = fullTime(instant);
  bubble.time.textContent = clockTime(instant);
  const state = entry ? { queued: "Waiting…", sending: "Sending…", failed: "Not sent" }[entry.state] : message.edited_at ? "Edited" : "";
  bubble.state.textContent = state;
  bubble.state.title = message?.edited_at ? fullTime(message.edited_at) : "";
  drawProblem(bubble);
  drawActions(bubble);
}

function drawProblem({ entry, trouble, problem }) {
  const isFailed = entry?.state === "failed";
  problem.hidden = !isFailed && !trouble;
  if (problem.hidden) return problem.replaceChildren();
  if (!isFailed) return problem.replaceChildren(icon("i-alert"), h("span", {}, trouble));
  const seconds = entry.retryAt ? Math.ceil((entry.retryAt - performance.now()) / 1000) : 0;
  const retry = h("button", { type: "button", className: "link", onclick: () => setting.handlers.retry(entry) }, "Retry");
  problem.replaceChildren(
    icon("i-alert"),
    h("span", {}, seconds > 0 ? `${entry.reason} Try again in ${seconds} s.` : entry.reason),
    retry,
    h("button", { type: "button", className: "link", onclick: () => setting.handlers.discard(entry) }, "Discard"),
  );
  if (seconds > 0) {
    retry.disabled = true;
    setTimeout(() => entry.state === "failed" && problem.isConnected && drawProblem({ entry, trouble, problem }), 1000);
  }
}

function drawActions(bubble) {
  const isOwn = bubble.role === "user";
  const kind = !bubble.message || bubble.isEditing || bubble.role === "system" ? "none" : isOwn && setting.isEditable ? "own" : "any";
  if (bubble.kind === kind) return;
  bubble.kind = kind;
  const action = (name, label, run) =>
    h("button", { type: "button", className: "icon-button tiny", "aria-label": label, title: label, onclick: run }, icon(name));
  const actions = [];
  if (kind !== "none") {
    if (navigator.clipboard) actions.push(action("i-copy", "Copy", () => copy(bubble)));
    if (kind === "own") {
      actions.push(action("i-pencil", "Edit", () => edit(bubble)));
      actions.push(action("i-undo", "Withdraw", () => setting.handlers.withdraw(bubble.message.sequence)));
    }
    actions.push(action("i-branch", "Branch from here", () => setting.handlers.branch(bubble.message.sequence)));
  }
  bubble.actions.replaceChildren(...actions);
}

async function copy({ message }) {
  try {
    await navigator.clipboard.writeText(message.content);
    toast("Copied");
  } catch {
    toast("The browser did not allow copying", "i-alert");
  }
}

/** What is more than text: files as links. Other kinds belong to applications that know them. */
function files(parts = []) {
  return parts
    .filter((part) => part?.type === "file" && typeof part.url === "string" && isSafe(part.url))
    .map((part) => h("a", { className: "file", href: part.url, target: "_blank", rel: "noopener noreferrer" }, icon("i-file"), String(part.name || "File")));
}

function isSafe(url) {
  try {
    return ["http:", "https:"].includes(new URL(url, location.href).protocol);
  } catch {
    return false;
  }
}

export function edit(bubble) {
  if (bubble.isEditing) return;
  bubble.isEditing = true;
  const field = h("textarea", { className: "edit-text", value: bubble.message.content, rows: 1, "aria-label": "Edit your message" });
  const problem = h("p", { className: "edit-problem", role: "alert", hidden: true });
  const save = h("button", { type: "submit", className: "button button-small button-primary" }, "Save");
  const cancel = h("button", { type: "button", className: "button button-small button-quiet", onclick: () => done() }, "Cancel");
  const form = h("form", { className: "edit" }, field, problem, h("div", { className: "edit-buttons" }, cancel, save));
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  };
  const done = () => {
    bubble.isEditing = false;
    bubble.shown = null;
    bubble.node.classList.remove("is-editing");
    draw(bubble);
    (bubble.actions.querySelector("[aria-label=Edit]") ?? $("text")).focus();
  };
  field.addEventListener("input", grow);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      done();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const content = field.value;
    if (!content.trim() || content === bubble.message.content) return done();
    save.disabled = true;
    try {
      bubble.message = await setting.handlers.edit(bubble.message.sequence, content);
      done();
      announce("Message changed");
    } catch (error) {
      problem.textContent = error.explanation ?? error.message;
      problem.hidden = false;
      save.disabled = false;
    }
  });
  bubble.node.classList.add("is-editing");
  bubble.body.replaceChildren(form);
  drawActions(bubble);
  grow();
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
  bubble.node.scrollIntoView({ block: "nearest" });
}
