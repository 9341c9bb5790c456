"""What the page says of time that runs out, by warnings that a real sweep in another process records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from playwright.sync_api import Error as PlaywrightError

from .conftest import ROOT, Site, log_in, serve
from .pages import FAULTS, Chat

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.sqlite, pytest.mark.timeout(240)]

Contexts = Callable[..., BrowserContext]

#: A process that lets time pass for a session, until it has so many seconds left, and sweeps; starting one each time
#: would take seconds.
TIME = """
import json, sys, django
django.setup()
from django.utils import timezone
from django_chat_sessions import log
from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations.sweeps import SWEEPS
from django_chat_sessions.testing import age
for line in sys.stdin:
    uuid, left, sweeps = json.loads(line)
    # All at once: a page that reads the session in between sees a deadline of which nobody warns.
    with log.begin("default"):
        session = ChatSession.objects.get(uuid=uuid)
        if left is not None:
            age(session, seconds=(session.expires_at - timezone.now()).total_seconds() - left)
        for sweep in sweeps:
            SWEEPS[sweep].work()
    print(json.dumps(list(session.events.values_list("type", flat=True))), flush=True)
"""

HIDE = """(hidden) => {
    Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""

#: Notes down whatever is read out.
LISTEN = """() => {
    window.heard = [];
    const region = document.getElementById("announcer");
    new MutationObserver(() => region.textContent && window.heard.push(region.textContent))
        .observe(region, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the example with three warnings, whose content goes at the first sweep; nobody sweeps but the tests."""
    settings = {"WARNING_THRESHOLD_MINUTES": [15, 5, 1], "RETENTION": {"expired": 0, "action": "archive"}}
    yield from serve(tmp_path_factory.mktemp("expiring"), chat_sessions=settings)


@pytest.fixture(scope="module")
def time(site: Site) -> Iterator[subprocess.Popen[str]]:
    """Start the process in which time passes."""
    command = [sys.executable, "-c", TIME]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=site.environment, text=True, **pipes) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@dataclass
class Expiring(Chat):
    """A conversation for which time passes."""

    page: Page
    time: subprocess.Popen[str]

    def __post_init__(self) -> None:
        """Be a chat as well."""
        super().__init__(self.page)
        self.page.evaluate(LISTEN)
        self.bar = self.page.locator("#stay-bar")
        self.stay = self.page.get_by_role("button", name="Keep it open")
        self.timer = self.page.get_by_role("timer")

    def pass_time(self, *sweeps: str, left: float | None = None) -> list[str]:
        """Let time pass until so many seconds are left, and sweeps go by; return what the log says then."""
        assert self.time.stdin
        assert self.time.stdout
        self.time.stdin.write(json.dumps([self.session, left, sweeps]) + "\n")
        self.time.stdin.flush()
        types: list[str] = json.loads(self.time.stdout.readline())
        return types

    def seconds_left(self) -> int:
        minutes, seconds = self.timer.inner_text().split(":")
        return int(minutes) * 60 + int(seconds)

    def heard(self) -> list[str]:
        """What was read out of time that runs out."""
        texts: list[str] = self.page.evaluate("window.heard")
        return [text for text in texts if "expires in" in text]


@pytest.fixture
def chat(site: Site, time: subprocess.Popen[str], contexts: Contexts, guest: str) -> Expiring:
    """Open a conversation in which something has been said."""
    return begin(site, time, log_in(contexts(), site, guest))


def begin(site: Site, time: subprocess.Popen[str], context: BrowserContext) -> Expiring:
    chat = Chat.begin(context, site, "echo", "Wait for me")
    chat.sees("Wait for me", "Wait for me")
    return Expiring(chat.page, time)


def test_the_warning_of_a_sweep_begins_a_countdown_that_is_not_read_out_each_second(chat: Expiring) -> None:
    expect(chat.stay).to_be_hidden()
    assert chat.pass_time("warn", left=14 * 60)[-1] == "session.expiring"
    expect(chat.chip).to_contain_text(re.compile(r"Expires in\s*1[34]:\d\d"))
    before = chat.seconds_left()
    chat.page.wait_for_timeout(2_100)
    assert chat.seconds_left() < before
    assert chat.heard() == ["This conversation expires in 14 minutes. You can keep it open."]
    assert chat.timer.evaluate("(node) => node.closest('[aria-live], [role=status]')") is None


def test_later_warnings_of_sweeps_are_read_out_once_each(chat: Expiring) -> None:
    assert chat.pass_time("warn", left=64).count("session.expiring") == 1
    expect(chat.timer).to_have_text(re.compile(r"0:5\d"))
    assert chat.heard() == ["This conversation expires in 1 minute. You can keep it open."]
    assert chat.pass_time("warn").count("session.expiring") == 2
    while len(chat.heard()) < 2:
        chat.page.wait_for_timeout(100)
    assert chat.pass_time("warn").count("session.expiring") == 2
    chat.page.wait_for_timeout(2_000)
    assert len(chat.heard()) == 2


def test_kept_open_it_counts_no_more_in_any_tab(site: Site, time: subprocess.Popen[str], chat: Expiring) -> None:
    opened = Chat.open(chat.page.context, site, f"/?session={chat.session}")
    opened.sees("Wait for me", "Wait for me")
    # Opening it after a long time would be coming back to it, which moves the deadline.
    expect(opened.log).not_to_have_class(re.compile("is-loading"))
    opened.is_writable()
    tabs = (chat, Expiring(opened.page, time))
    chat.pass_time("warn", left=260)
    for tab in tabs:
        expect(tab.stay).to_be_visible()
    chat.stay.click()
    for tab in tabs:
        expect(tab.stay).to_be_hidden()
        expect(tab.chip).not_to_contain_text("Expires in")
        tab.is_writable()
    expect(chat.box).to_be_focused()


def test_what_is_said_on_another_device_stops_the_count(site: Site, chat: Expiring, guest: str) -> None:
    chat.pass_time("warn", left=260)
    expect(chat.stay).to_be_visible()
    with site.api(guest) as api:
        body = {"content": "Still here", "delivery": "store"}
        assert api.post(f"sessions/{chat.session}/messages", json=body).status_code == 201
    expect(chat.stay).to_be_hidden()


def test_at_zero_it_closes_and_goes_on_in_a_new_one_with_what_was_said(chat: Expiring) -> None:
    chat.box.fill("Half a thought")
    chat.pass_time("warn", left=14)
    expect(chat.bar).to_have_attribute("data-urgent", "true")
    expect(chat.timer).to_have_text(re.compile(r"0:[01]\d"))
    session = chat.session
    expect(chat.banner).to_contain_text("This conversation expired", timeout=30_000)
    expect(chat.box).to_be_hidden()
    expect(chat.stay).to_be_hidden()
    chat.page.get_by_role("button", name="Continue in a new conversation").click()
    chat.is_writable()
    assert chat.session != session
    expect(chat.box).to_have_value("Half a thought")
    chat.sees("Wait for me", "Wait for me")


def test_without_a_connection_it_counts_on_and_settles_when_there_is_one(chat: Expiring) -> None:
    chat.pass_time("warn", left=14)
    expect(chat.timer).to_have_text(re.compile(r"0:[01]\d"))
    chat.page.context.set_offline(True)
    expect(chat.bar).to_contain_text("as far as can be told without a connection", timeout=30_000)
    expect(chat.box).to_be_visible()
    chat.page.context.set_offline(False)
    expect(chat.banner).to_contain_text("This conversation expired")


def test_a_laptop_that_slept_knows_how_late_it_is(chat: Expiring) -> None:
    chat.pass_time("warn", left=260)
    expect(chat.timer).to_have_text(re.compile(r"4:\d\d"))
    chat.page.context.set_offline(True)
    # What a sleeping machine does to a page: the wall clock goes on, the monotonic one stands still.
    chat.page.evaluate("(now => { Date.now = () => now() + 150_000; })(Date.now.bind(Date))")
    expect(chat.timer).to_have_text(re.compile(r"1:\d\d"))
    chat.page.context.set_offline(False)
    expect(chat.timer).to_have_text(re.compile(r"[34]:\d\d"))  # this one did not, and the server knows


def test_a_tab_in_the_background_says_so_in_its_title(chat: Expiring) -> None:
    chat.page.evaluate(HIDE, True)
    chat.pass_time("warn", left=260)
    expect(chat.page).to_have_title(re.compile("^Expires soon · "))
    expect(chat.page.locator("#announcer")).to_contain_text("This conversation expires in 4 minutes")
    chat.page.evaluate(HIDE, False)
    expect(chat.page).not_to_have_title(re.compile("Expires soon"))


def test_a_conversation_that_is_archived_under_the_page_is_not_shown_as_if_it_were_there(chat: Expiring) -> None:
    chat.pass_time("expire", left=-60)
    expect(chat.banner).to_contain_text("This conversation expired")
    assert chat.pass_time("archive")[-1] == "session.archived"
    for hidden in (True, False):  # it is looked at again
        chat.page.evaluate(HIDE, hidden)
    expect(chat.banner).to_contain_text("This conversation is archived")
    chat.sees("No longer here", "No longer here")
    assert chat.page.evaluate(FAULTS) == []
    session = chat.session
    chat.page.get_by_role("button", name="Start a new conversation").click()
    chat.page.wait_for_url(lambda url: session not in url)
    chat.is_writable()


def test_a_conversation_that_is_deleted_under_the_page_leaves_a_way_on(site: Site, chat: Expiring, guest: str) -> None:
    chat.pass_time("expire", left=-60)
    expect(chat.banner).to_contain_text("This conversation expired")
    with site.api(guest) as api:
        assert api.delete(f"sessions/{chat.session}").status_code == 204
    nothing = chat.page.get_by_role("heading", name="Nothing here")
    with suppress(PlaywrightError):  # unless the page finds out by itself before
        chat.page.get_by_role("button", name="Continue in a new conversation").click(timeout=5_000)
    expect(nothing).to_be_visible()
    chat.page.locator("#hero").get_by_role("button", name="New conversation").click()
    chat.is_writable()


PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_countdown_is_legible_and_fits(
    site: Site, time: subprocess.Popen[str], contexts: Contexts, guest: str, scheme: str, device: dict[str, Any]
) -> None:
    chat = begin(site, time, log_in(contexts(color_scheme=scheme, **device), site, guest))
    for left, urgent in ((260, "false"), (45, "true")):
        chat.pass_time("warn", left=left)
        expect(chat.bar).to_have_attribute("data-urgent", urgent)
        expect(chat.stay).to_be_in_viewport(ratio=1)
        chat.page.wait_for_timeout(400)  # colours that are on their way arrive
        assert chat.page.evaluate(FAULTS) == []
        assert chat.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
