// One message: its text, its state, and what can be done with it.

import { $, announce, h, icon, linkify, toast } from "./dom.js";
import { serverNow } from "./link.js";
import { agentMark } from "./marks.js";
import { agentTitle, clockTime, fullTime } from "./words.js";

/** What all messages in view have in common: whose answers they are, whether own ones may be changed, who does it. */
export const setting = { agent: "", isEditable: false, handlers: {} };

/** Make an empty one: {role, item, message, entry, standing, error, isEditing} and its nodes. `item` is the client's,
 * `message` what is shown of it, `standing` how its run went where it is the last of one. */
export function build(role) {
  const bubble = { role, item: null, message: null, entry: null, standing: "", error: "", isEditing: false };
  const speaker = { user: "You", assistant: agentTitle(setting.agent), system: "System", tool: "Tool" }[role] ?? role;
  bubble.body = h("div", { className: "bubble" });
  bubble.tools = h("div", { className: "tools-used", hidden: true });
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
      bubble.tools,
      bubble.problem,
      h("div", { className: "msg-foot" }, bubble.time, bubble.state, bubble.actions),
    ),
  );
  return bubble;
}

/** When it was said; of what is being said, when it was first seen. */
export function instantOf(bubble) {
  bubble.begunAt ??= new Date(serverNow()).toISOString();
  return bubble.message?.created_at ?? bubble.entry?.at ?? bubble.begunAt;
}

export function draw(bubble) {
  const { message, entry, node } = bubble;
  if (message?.sequence) node.dataset.sequence = message.sequence;
  if (message?.external_id) node.dataset.externalId = message.external_id;
  node.classList.toggle("is-erased", isErased(message));
  node.dataset.state = entry ? entry.state : message.isPartial ? "partial" : message.metadata.cut_short ?? "stored";
  drawText(bubble);
  drawTools(bubble, message);
  const instant = instantOf(bubble);
  bubble.time.dateTime = instant;
  bubble.time.title = fullTime(instant);
  bubble.time.textContent = clockTime(instant);
  bubble.state.textContent = state(bubble);
  bubble.state.title = message?.edited_at ? fullTime(message.edited_at) : "";
  drawProblem(bubble);
  drawActions(bubble);
}

/** Whether its content has been removed since: of a message in an archive its skeleton is left. */
const isErased = (message) => Boolean(message?.sequence && !message.content && !message.parts.length);

/** Not each word is read out, but the whole of it once it is there: what is added then is an addition to the log. */
function drawText(bubble) {
  const { message, entry, node, body } = bubble;
  if (bubble.role === "tool") return void (body.hidden = true); // among the tools, below
  const content = isErased(message) ? "No longer here" : message ? message.content : entry.content;
  const wasPartial = node.getAttribute("aria-live") === "off";
  if (message?.isPartial) {
    node.setAttribute("aria-live", "off");
    // Only what is new is added, so that a selection in the rest survives.
    const shown = body.firstChild?.data ?? "";
    if (body.childNodes.length === 1 && content.startsWith(shown)) body.firstChild.appendData(content.slice(shown.length));
    else body.replaceChildren(content);
  } else if (!bubble.isEditing && (wasPartial || bubble.shown !== content)) {
    node.removeAttribute("aria-live");
    bubble.shown = content;
    body.replaceChildren(...linkify(content), ...files(message?.parts));
  }
  body.hidden = !body.childNodes.length;
}

const TOOL_TEXT = 2000; // characters of what a tool was told or said that are shown

/** Which tools were called and what they answered: a line for each that opens. */
function drawTools(bubble, message) {
  const parts = (message?.parts ?? []).filter((part) => part?.type === "tool_call" || part?.type === "tool_result");
  bubble.tools.hidden = !parts.length;
  if (!parts.length || bubble.partsShown === message.parts) return;
  bubble.partsShown = message.parts;
  bubble.tools.replaceChildren(...parts.map((part) => (part.type === "tool_call" ? call(part) : result(part, message.content))));
}

const call = ({ name, arguments: given }) => tool(`Called ${name}`, JSON.stringify(given ?? {}, null, 2));
const result = ({ name, is_error: isError }, text) => tool(`${name || "A tool"} ${isError ? "failed" : "answered"}`, text);

function tool(title, text) {
  const shown = text.length > TOOL_TEXT ? `${text.slice(0, TOOL_TEXT)}…` : text;
  return h("details", { className: "tool" }, h("summary", {}, icon("i-tool"), h("span", {}, title)), h("pre", {}, shown));
}

function state({ entry, message, standing }) {
  if (entry) return { queued: "Waiting…", waiting: "Waiting…", sending: "Sending…", failed: "Not sent" }[entry.state] ?? "";
  if (message.metadata.cut_short === "cancelled") return "Stopped";
  if (standing === "cancelled" && message.role === "user") return "Stopped before an answer";
  return message.edited_at ? "Edited" : "";
}

const FAILURES = {
  OutOfTime: "The answer took too long and was broken off.",
  ProcessLost: "The answer broke off: the process that gave it was lost.",
  ProcessStopped: "The answer broke off: the server was restarted.",
};

/** Why an answer failed, in words. */
export const failure = (error) => FAILURES[error] ?? "The agent could not answer.";

/** What is wrong with it: {text, again}, or null. */
function trouble({ message, standing, error, role }) {
  const isBroken = message.metadata.cut_short === "failed";
  if (standing === "failed") return { text: `${failure(error)}${role === "user" ? " Your message is kept." : ""}`, again: true };
  if (!isBroken) return null;
  const isBegunAnew = standing === "running" || standing === "queued";
  return { text: isBegunAnew ? "The answer broke off. Starting over…" : "The answer broke off." };
}

function drawProblem(bubble) {
  const { entry, problem } = bubble;
  const found = entry ? null : trouble(bubble);
  problem.hidden = entry?.state !== "failed" && !found;
  if (problem.hidden) return problem.replaceChildren();
  if (found) {
    const again = found.again && setting.isEditable ? [link("Try again", setting.handlers.again)] : [];
    return problem.replaceChildren(icon("i-alert"), h("span", {}, found.text), ...again);
  }
  const seconds = entry.retryAt ? Math.ceil((entry.retryAt - performance.now()) / 1000) : 0;
  const retry = link("Retry", () => setting.handlers.retry(entry));
  problem.replaceChildren(
    icon("i-alert"),
    h("span", {}, seconds > 0 ? `${entry.reason} Try again in ${seconds} s.` : entry.reason),
    retry,
    link("Discard", () => setting.handlers.discard(entry)),
  );
  if (seconds > 0) {
    retry.disabled = true;
    setTimeout(() => entry.state === "failed" && problem.isConnected && drawProblem(bubble), 1000);
  }
}

const link = (label, run) => h("button", { type: "button", className: "link", onclick: run }, label);

function drawActions(bubble) {
  const { message, standing } = bubble;
  const isFinal = message?.sequence && !bubble.isEditing && !["system", "tool"].includes(bubble.role);
  const isOwn = bubble.role === "user" && setting.isEditable;
  const isAnswered = ["succeeded", "cancelled"].includes(standing) && setting.isEditable;
  const kind = isFinal ? `${isOwn ? "own" : "any"} ${isAnswered ? standing : ""}` : "none";
  if (bubble.kind === kind) return;
  bubble.kind = kind;
  const action = (name, label, run) =>
    h("button", { type: "button", className: "icon-button tiny", "aria-label": label, title: label, onclick: run }, icon(name));
  const actions = [];
  if (isFinal) {
    if (navigator.clipboard && message.content) actions.push(action("i-copy", "Copy", () => copy(bubble)));
    if (isAnswered) actions.push(action("i-again", bubble.role === "user" ? "Try again" : "Regenerate", setting.handlers.again));
    if (isOwn) {
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
      // The client learns of it in a moment.
      bubble.message = { ...bubble.item, ...(await setting.handlers.edit(bubble.message.sequence, content)) };
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
