// The page: everything wired together.

import { initAccount } from "./account.js";
import { branch, edit, endIt, exports, rename, showActions, stay, withdraw } from "./actions.js";
import * as composer from "./composer.js";
import { apply, drawBeginning, drawHeading, reread, unread, view } from "./current.js";
import { $, isNarrow } from "./dom.js";
import { again, post, send, stop } from "./following.js";
import { closeDrawer, openDrawer } from "./frame.js";
import { life } from "./life.js";
import { isReachable, line, onTabs } from "./link.js";
import { openMenu } from "./menus.js";
import * as outbox from "./outbox.js";
import * as sidebar from "./sidebar.js";
import * as talk from "./talk.js";
import { comeBack, gone, openSession, relist, route, startNew } from "./visits.js";
import { isLive } from "./words.js";

life.addEventListener("changed", ({ detail }) => apply(detail));
life.addEventListener("expiring", drawHeading);
life.addEventListener("refused", ({ detail }) => detail.status === 404 && gone());
line.addEventListener("reach", () => isReachable() && void sidebar.refresh());

document.addEventListener("visibilitychange", async () => {
  if (document.hidden) return;
  unread(0);
  drawHeading();
  void sidebar.refresh();
  await reread();
  void comeBack();
});

// Other tabs of this browser say that something happened; other browsers are heard of through the log and the list.
onTabs("sessions", () => void sidebar.refresh());
onTabs("look", ({ session }) => {
  void sidebar.refresh();
  if (session === view.id && !isLive(view.session?.status)) void reread();
});
setInterval(() => {
  if (document.hidden) return;
  void sidebar.refresh();
  // What is over is archived and deleted in time, of which no stream tells.
  if (view.session && !isLive(view.session.status)) void reread();
}, 60_000);

addEventListener("popstate", () => void route());

document.addEventListener("keydown", (event) => {
  if ($("dialog").open) return;
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    if (isNarrow()) openDrawer();
    $("search").focus();
    $("search").select();
  } else if (isCommand && event.shiftKey && event.key.toLowerCase() === "o") {
    event.preventDefault();
    startNew(null);
  } else if (event.key === "Escape") {
    if ($("shell").classList.contains("has-drawer")) closeDrawer();
    else if (!$("stop").hidden) void stop();
    else if (!$("composer").hidden) composer.focus();
  }
});

$("new").addEventListener("click", () => startNew(null));
$("open-drawer").addEventListener("click", openDrawer);
$("close-drawer").addEventListener("click", closeDrawer);
$("scrim").addEventListener("click", closeDrawer);
matchMedia("(max-width: 800px)").addEventListener("change", closeDrawer);
$("rename").addEventListener("click", rename);
$("title").addEventListener("dblclick", () => view.session && !$("title").querySelector("input") && rename());
$("end").addEventListener("click", endIt);
$("export").addEventListener("click", () => openMenu($("export"), exports()));
$("actions").addEventListener("click", showActions);
$("stay").addEventListener("click", stay);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  ($("composer").hidden ? $("banner") : $("text")).focus();
});

initAccount();
composer.initComposer({ send, stop, editLast: talk.editLast });
talk.initTalk({
  older: () => view.conversation.loadEarlier(),
  again,
  edit,
  withdraw,
  branch,
  retry: outbox.retry,
  discard: (entry) => {
    outbox.discard(entry);
    drawBeginning();
    composer.focus();
  },
});
sidebar.initSidebar({ open: (id) => void openSession(id), named: (id) => id === view.id && drawHeading() });

outbox.initOutbox({ post });
relist();
void route();
