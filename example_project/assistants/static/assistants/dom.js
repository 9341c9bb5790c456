// Small helpers for the page. Data only ever becomes text nodes and attributes, never markup.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: properties by name, `on…` handlers, `data`, `aria-…` attributes, then children. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An icon of the sprite in the page. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** What Django put into the page with `json_script`. */
export function readJSON(id) {
  return JSON.parse($(id)?.textContent || "null");
}

/** Give `parent` exactly these children, moving as few of them as possible, so that focus and selection survive. */
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.childNodes]) if (!keep.has(child)) child.remove();
  let here = parent.firstChild;
  for (const child of wanted) {
    if (child === here) here = here.nextSibling;
    else parent.insertBefore(child, here);
  }
}

let announcing;
let told = [];

/** Tell those who listen instead of look. */
export function announce(text) {
  const region = $("announcer");
  region.textContent = "";
  told.push(text);
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    region.textContent = told.join(" ");
    told = [];
  }, 60);
}

/** A short word in the corner; it needs no answer. */
export function toast(text, iconName = "i-check") {
  const node = h("div", { className: "toast" }, icon(iconName), h("span", {}, text));
  $("toasts").append(node);
  announce(text);
  setTimeout(() => node.classList.add("leaving"), 3200);
  setTimeout(() => node.remove(), 3600);
}

const ADDRESS = /\bhttps?:\/\/[^\s<>"']+/gi;

/** Text as nodes, its web addresses as links. Brackets and stops at the end belong to the sentence. */
export function linkify(text) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(ADDRESS)) {
    let address = match[0].replace(/[.,;:!?…]+$/, "");
    if (address.endsWith(")") && !address.includes("(")) address = address.slice(0, -1).replace(/[.,;:!?…]+$/, "");
    if (!URL.canParse(address)) continue;
    nodes.push(text.slice(end, match.index));
    nodes.push(h("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, address));
    end = match.index + address.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

/** Whether a finger rather than a mouse points: then focus must not raise the keyboard unasked. */
export const isTouch = () => matchMedia("(pointer: coarse)").matches;

/** Whether the list of conversations is a drawer. */
export const isNarrow = () => matchMedia("(max-width: 800px)").matches;
