// Menus and the dialog: keyboard, focus and light dismissal, once.

import { $, h, icon } from "./dom.js";

let open = null;

/** Open a menu under (or over) a button. `items`: {label, icon, run, href, download, checked, danger} or null for a line. */
export function openMenu(button, items) {
  if (open?.button === button) return open.close();
  open?.close();
  const entries = items.map(entry);
  const menu = h("div", { className: "menu", role: "menu", "aria-label": button.getAttribute("aria-label") ?? "", tabIndex: -1 }, entries);
  const focusable = entries.filter((node) => node.role !== "separator");
  const close = (refocus = true) => {
    if (open?.menu !== menu) return;
    open = null;
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    removeEventListener("resize", dismiss);
    if (refocus) button.focus();
  };
  const dismiss = () => close(false);
  const outside = (event) => !menu.contains(event.target) && !button.contains(event.target) && close(false);

  function entry(item) {
    if (!item) return h("div", { className: "menu-line", role: "separator" });
    const checkable = item.checked !== undefined;
    return h(
      item.href ? "a" : "button",
      {
        className: `menu-item${item.danger ? " danger" : ""}${item.phone ? " phone-only" : ""}`,
        type: item.href ? undefined : "button",
        href: item.href,
        download: item.download,
        role: checkable ? "menuitemradio" : "menuitem",
        "aria-checked": checkable ? String(item.checked) : undefined,
        tabIndex: -1,
        onclick: () => {
          close();
          item.run?.();
        },
      },
      icon(item.icon),
      h("span", {}, item.label),
      item.checked ? icon("i-check") : null,
    );
  }

  menu.addEventListener("keydown", (event) => {
    const shown = focusable.filter((node) => node.offsetParent !== null);
    const here = shown.indexOf(document.activeElement);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to !== undefined) shown.at(to % shown.length)?.focus();
    else if (event.key === "Escape") close();
    else if (event.key === "Tab") return close();
    else if (event.key.length === 1 && event.key !== " ") {
      const letter = event.key.toLowerCase();
      shown.find((node) => node.textContent.trim().toLowerCase().startsWith(letter))?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });

  document.body.append(menu);
  place(menu, button);
  button.setAttribute("aria-expanded", "true");
  open = { menu, button, close };
  setTimeout(() => document.addEventListener("pointerdown", outside, true));
  addEventListener("resize", dismiss);
  focusable.find((node) => node.offsetParent !== null)?.focus();
}

function place(menu, button) {
  const anchor = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = anchor.bottom + 6 + height < innerHeight;
  menu.style.top = `${Math.max(8, below ? anchor.bottom + 6 : anchor.top - 6 - height)}px`;
  const left = anchor.left + width + 8 > innerWidth ? anchor.right - width : anchor.left;
  menu.style.left = `${Math.max(8, left)}px`;
}

/** Ask; resolves to the form's data if the answer is yes, to null if not. */
export function ask({ title, text, confirm, danger = false, field = null }) {
  const dialog = $("dialog");
  const input = field ? h("input", { id: "dialog-field", name: "value", maxLength: field.max, autocomplete: "off" }) : null;
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    text ? h("p", {}, text) : null,
    field ? h("div", { className: "field" }, h("label", { htmlFor: "dialog-field" }, field.label), input) : null,
    h(
      "div",
      { className: "dialog-buttons" },
      h("button", { type: "submit", value: "no", className: "button button-quiet", formNoValidate: true }, "Cancel"),
      h("button", { type: "submit", value: "yes", className: `button ${danger ? "button-danger" : "button-primary"}` }, confirm),
    ),
  );
  // Enter in the field means the confirmation, which is not the form's first button.
  input?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    dialog.close("yes");
  });
  const cancel = form.querySelector("button[value=no]");
  return show(form, input ?? (danger ? cancel : null)).then((answer) => (answer === "yes" ? { value: input?.value.trim() ?? "" } : null));
}

/** Tell: a dialog with one button. */
export function tell(title, ...content) {
  const close = h("button", { type: "submit", value: "yes", className: "button button-primary" }, "Close");
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), content, h("div", { className: "dialog-buttons" }, close));
  return show(form, close);
}

function show(form, focus) {
  const dialog = $("dialog");
  const before = document.activeElement;
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  (focus ?? form.querySelector(".dialog-buttons button:last-child")).focus();
  return new Promise((resolve) => {
    dialog.onclick = (event) => {
      if (event.target === dialog) dialog.close("no"); // beside it
    };
    dialog.onclose = () => {
      if (before?.isConnected) before.focus();
      resolve(dialog.returnValue);
    };
  });
}
