"""Answers as they are written, over connections that are really cut."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from .conftest import Site, log_in
from .pages import FAULTS, Chat
from .proxy import Proxy

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.sqlite, pytest.mark.timeout(240)]

Contexts = Callable[..., BrowserContext]

#: As many seconds as the agent slow_echo takes to say it, more or less.
SHORT, LONG = (" ".join(f"word{number}" for number in range(seconds * 10)) for seconds in (3, 12))


def enter(contexts: Contexts, site: Site, username: str, **options: Any) -> BrowserContext:
    """Log somebody in where the site may be behind a wire."""
    return log_in(contexts(**options), site, username)


def asked(context: BrowserContext, site: Site, text: str = LONG, agent: str = "slow_echo") -> Chat:
    """Ask the agent in a new conversation, and wait until it is well into its answer."""
    chat = Chat.begin(context, site, agent, text)
    chat.says("word8" if agent == "slow_echo" else "Nobody in the village")
    return chat


def grow(texts: Iterable[str]) -> bool:
    """Tell whether each continues the one before."""
    return all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


def stored(site: Site, username: str, session: str) -> list[tuple[str, str, str | None]]:
    """Return the messages of a conversation: role, content and by what they were cut short."""
    with site.api(username) as api:
        messages = api.get(f"sessions/{session}/messages").json()["messages"]
    return [(one["role"], one["content"], one["metadata"].get("cut_short")) for one in messages]


# --------------------------------------------------------------------------------------------------- words as they come


def test_words_come_as_they_are_said(site: Site, contexts: Contexts, guest: str) -> None:
    chat = Chat.open(enter(contexts, site, guest), site, "/?new=slow_echo")
    chat.watch()
    chat.say(SHORT)
    expect(chat.partial).to_be_visible()
    article = chat.log.locator(".msg[data-state=partial]")
    expect(article).to_have_attribute("aria-live", "off")  # or each word would be read out
    expect(chat.stop).to_be_visible()
    expect(chat.page.get_by_role("button", name="Send")).to_be_hidden()
    chat.sees(SHORT, SHORT)
    expect(chat.answer).not_to_have_attribute("aria-live", re.compile(""))
    expect(chat.stop).to_be_hidden()
    expect(chat.box).to_be_focused()
    seen = chat.seen
    assert len(seen) > 8, seen
    assert grow(seen), seen


def test_tools_are_told_of_and_opened_by_whoever_wants_to_know(site: Site, contexts: Contexts, guest: str) -> None:
    chat = asked(enter(contexts, site, guest), site, "A kettle", agent="storyteller")
    expect(chat.log).to_contain_text("Called open_book")
    page = chat.page.get_by_text("The Long Evening, page 12")
    expect(page).to_be_hidden()
    chat.log.get_by_text("open_book answered").click()
    expect(page).to_be_visible()
    chat.says("a kettle")


def test_connection_cut_in_mid_frame_loses_no_word_and_doubles_none(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    chat = Chat.open(enter(contexts, wired_site, guest), wired_site, "/?new=slow_echo")
    chat.watch()
    chat.say(LONG)
    for number in (10, 30, 50, 70):
        chat.says(f"word{number}")
        proxy.cut_within("event: message.delta")
    chat.sees(LONG, LONG)
    assert proxy.cuts == 4
    assert grow(chat.seen), chat.seen
    expect(chat.line).to_be_hidden()


def test_what_is_said_while_nobody_listens_comes_when_the_wire_is_back(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    chat = asked(enter(contexts, wired_site, guest), wired_site, SHORT)
    chat.watch()
    proxy.go_down()
    expect(chat.line).to_contain_text("No connection. Reconnecting")
    before = chat.text()
    time.sleep(4)  # it is over by then, unheard
    assert chat.text() == before
    proxy.come_up()
    chat.sees(SHORT, SHORT)
    expect(chat.line).to_be_hidden()
    expect(chat.stop).to_be_hidden()
    assert grow(chat.seen), chat.seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_answer_being_given_stopped_and_cut_off_is_labelled_and_legible(
    site: Site, contexts: Contexts, guest: str, scheme: str
) -> None:
    def check(what: str) -> None:
        chat.page.wait_for_timeout(400)  # colours that are on their way arrive
        assert chat.page.evaluate(FAULTS) == [], what

    context = enter(contexts, site, guest, color_scheme=scheme)
    chat = asked(context, site, "A kettle", agent="storyteller")
    check("being given")
    context.set_offline(True)
    chat.say("Later")
    expect(chat.message("Later")).to_contain_text("Waiting")
    check("offline")
    context.set_offline(False)
    expect(chat.line).to_be_hidden()
    chat.stop.click()
    expect(chat.log).to_contain_text("Stopped")
    check("stopped")


def test_answer_is_read_and_stopped_on_a_phone(site: Site, contexts: Contexts, guest: str) -> None:
    phone = {"viewport": {"width": 375, "height": 700}, "has_touch": True, "is_mobile": True}
    context = enter(contexts, site, guest, **phone)
    chat = asked(context, site)
    context.set_offline(True)
    expect(chat.line).to_be_visible()
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 375
    context.set_offline(False)
    expect(chat.line).to_be_hidden()
    chat.says("word60")
    expect(chat.partial).to_be_in_viewport()
    chat.stop.tap()
    expect(chat.answer).to_contain_text("Stopped")
    chat.answer.get_by_role("button", name="Regenerate").tap()
    chat.says("word2")


# ----------------------------------------------------------------------------------------------------- the stop button


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_stop_stops_within_a_second_and_keeps_what_was_said(
    site: Site, contexts: Contexts, guest: str, way: str
) -> None:
    chat = asked(enter(contexts, site, guest), site)
    begun = time.monotonic()
    if way == "button":
        chat.stop.click()
    else:
        chat.page.keyboard.press("Escape")
    expect(chat.answer).to_contain_text("Stopped", timeout=1_000)
    assert time.monotonic() - begun < 1
    expect(chat.stop).to_be_hidden()
    expect(chat.box).to_be_focused()
    said = chat.text()
    assert said in LONG
    assert len(said) > len("word0") * 8
    time.sleep(1.5)
    assert chat.text() == said
    assert stored(site, guest, chat.session) == [("user", LONG, None), ("assistant", said, "cancelled")]

    chat.page.reload()
    chat.sees(LONG, said)
    expect(chat.answer).to_contain_text("Stopped")


def test_stopped_answer_can_be_given_again_and_the_old_one_goes(site: Site, contexts: Contexts, guest: str) -> None:
    chat = asked(enter(contexts, site, guest), site, SHORT)
    chat.stop.click()
    expect(chat.answer).to_contain_text("Stopped")
    chat.answer.hover()
    chat.answer.get_by_role("button", name="Regenerate").click()
    expect(chat.stop).to_be_visible()
    chat.sees(SHORT, SHORT)
    chat.answer.hover()
    chat.answer.get_by_role("button", name="Regenerate").click()
    chat.says("word5")
    expect(chat.messages).to_have_count(2)  # the whole one gave way to the one that is being given
    chat.sees(SHORT, SHORT)
    assert stored(site, guest, chat.session) == [("user", SHORT, None), ("assistant", SHORT, None)]


def test_stop_reaches_the_server_although_the_stream_is_cut(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    chat = asked(enter(contexts, wired_site, guest), wired_site)
    proxy.cut()
    chat.page.keyboard.press("Escape")
    expect(chat.answer).to_contain_text("Stopped", timeout=3_000)
    assert stored(wired_site, guest, chat.session)[1:] == [("assistant", chat.text(), "cancelled")]


# -------------------------------------------------------------------------------------------------- reload and two tabs


def test_reload_in_mid_answer_shows_at_once_what_was_said(site: Site, contexts: Contexts, guest: str) -> None:
    chat = asked(enter(contexts, site, guest), site)
    before = chat.text()
    chat.page.reload()
    chat.watch()
    chat.says(before)
    assert chat.seen[0].startswith(before)  # not again from its first word
    expect(chat.stop).to_be_visible()
    chat.says("word60")
    chat.sees(LONG, LONG)
    assert grow(chat.seen), chat.seen


def test_two_tabs_are_in_step_and_either_stops(site: Site, contexts: Contexts, guest: str) -> None:
    context = enter(contexts, site, guest)
    one = asked(context, site)
    other = Chat.open(context, site, f"/?session={one.session}")
    other.says("word12")
    for number in (20, 30, 40):
        one.says(f"word{number}")
        expect(other.partial).to_contain_text(one.text(), timeout=1_000)
    other.stop.click()
    expect(other.answer).to_contain_text("Stopped")
    expect(one.answer).to_contain_text("Stopped", timeout=1_000)
    assert one.text() == other.text()
    one.say(SHORT)
    other.says("word5")
    one.sees(LONG, other.log.locator(".bubble").nth(1).text_content() or "", SHORT, SHORT)


def test_what_is_typed_meanwhile_waits_its_turn(site: Site, contexts: Contexts, guest: str) -> None:
    chat = asked(enter(contexts, site, guest), site, SHORT)
    chat.say("And then?")
    expect(chat.message("And then?")).to_contain_text("Waiting")
    chat.sees(SHORT, SHORT, "And then?", "And then?")


# ------------------------------------------------------------------------------------------------------------- offline


def test_offline_in_mid_answer_says_so_and_comes_back_by_itself(site: Site, contexts: Contexts, guest: str) -> None:
    context = enter(contexts, site, guest)
    chat = asked(context, site, SHORT)
    context.set_offline(True)
    expect(chat.line).to_contain_text("No connection. Reconnecting")
    expect(chat.line).to_have_role("status")
    chat.say("From a tunnel")
    expect(chat.message("From a tunnel")).to_contain_text("Waiting")
    time.sleep(4)
    context.set_offline(False)
    expect(chat.line).to_be_hidden(timeout=5_000)
    chat.sees(SHORT, SHORT, "From a tunnel", "From a tunnel")
    contents = [content for _, content, _ in stored(site, guest, chat.session)]
    assert contents == [SHORT, SHORT, "From a tunnel", "From a tunnel"]


def test_question_whose_answer_is_lost_on_the_wire_is_stored_once(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    chat = Chat.begin(enter(contexts, wired_site, guest), wired_site, "echo", "Hello")
    chat.sees("Hello", "Hello")
    proxy.cut_within("202 Accepted")
    chat.say("Once")
    chat.sees("Hello", "Hello", "Once", "Once")
    assert proxy.cuts == 1
    expect(chat.message("Once")).to_have_attribute("data-state", "stored")
    contents = [content for _, content, _ in stored(wired_site, guest, chat.session)]
    assert contents == ["Hello", "Hello", "Once", "Once"]


def test_what_waits_for_a_connection_survives_a_reload(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    chat = Chat.begin(enter(contexts, wired_site, guest), wired_site, "echo", "Hello")
    chat.sees("Hello", "Hello")
    proxy.go_down()
    chat.say("Later")
    expect(chat.message("Later")).to_contain_text("Waiting")
    proxy.come_up()
    chat.page.reload()
    chat.sees("Hello", "Hello", "Later", "Later")
    contents = [content for _, content, _ in stored(wired_site, guest, chat.session)]
    assert contents == ["Hello", "Hello", "Later", "Later"]


def test_page_opened_without_its_server_finds_it_by_itself(
    wired_site: Site, proxy: Proxy, contexts: Contexts, guest: str
) -> None:
    context = enter(contexts, wired_site, guest)
    chat = Chat.begin(context, wired_site, "echo", "Hello")
    chat.sees("Hello", "Hello")
    context.route(re.compile("/api/"), lambda route: route.abort())
    chat.page.reload()
    expect(chat.page.get_by_role("heading", name="Not reachable")).to_be_visible()
    context.unroute(re.compile("/api/"))
    chat.sees("Hello", "Hello")
    chat.is_writable()


# --------------------------------------------------------------------------------------------------- a server that dies


def test_killed_server_leaves_an_answer_that_broke_off_and_can_be_asked_for_again(
    brittle_site: Site, contexts: Contexts, guest: str
) -> None:
    site = brittle_site
    chat = asked(enter(contexts, site, guest), site, SHORT)
    site.kill("server")
    expect(chat.line).to_contain_text("Reconnecting")
    said = chat.text()
    site.serve()
    expect(chat.line).to_be_hidden(timeout=60_000)
    expect(chat.answer).to_contain_text("The answer broke off", timeout=30_000)
    assert SHORT.startswith(chat.text())
    assert chat.text().startswith(said)
    expect(chat.stop).to_be_hidden()
    assert [cut for *_, cut in stored(site, guest, chat.session)] == [None, "failed"]

    chat.answer.get_by_role("button", name="Try again").click()
    chat.says("word5")
    chat.sees(SHORT, SHORT)
    expect(chat.log).not_to_contain_text("broke off")


def test_killed_server_makes_an_agent_that_may_be_asked_twice_begin_anew(
    brittle_site: Site, contexts: Contexts, guest: str
) -> None:
    site = brittle_site
    chat = asked(enter(contexts, site, guest), site, "A kettle", agent="storyteller")
    chat.says("a girl with a paper lantern")
    site.kill("server")
    expect(chat.line).to_contain_text("Reconnecting")
    site.serve()
    expect(chat.line).to_be_hidden(timeout=60_000)
    expect(chat.log).to_contain_text("sat down on the wall and listened.", timeout=60_000)
    expect(chat.stop).to_be_hidden()
    expect(chat.log).not_to_contain_text("broke off")
    assert chat.log.text_content().count("Once upon a time") == 1  # type: ignore[union-attr]
    assert [role for role, *_ in stored(site, guest, chat.session)] == ["user", "assistant", "tool", "assistant"]


# ---------------------------------------------------------------------------------------------------------------- WSGI


def test_server_that_cannot_stream_is_polled(wsgi_site: Site, contexts: Contexts, guest: str) -> None:
    chat = Chat.begin(enter(contexts, wsgi_site, guest), wsgi_site, "slow_echo", SHORT)
    expect(chat.stop).to_be_visible()
    chat.sees(SHORT, SHORT)
    chat.say(LONG)
    time.sleep(2)  # of the answer nothing is seen before it is over
    chat.stop.click()
    expect(chat.answer).to_contain_text("Stopped", timeout=5_000)
    assert LONG.startswith(chat.text())
