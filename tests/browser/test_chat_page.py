"""The example's page in a headless Chromium, against the real server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from .conftest import PASSWORD, Site
from .pages import FAULTS, Chat

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.sqlite, pytest.mark.timeout(240)]

Contexts = Callable[..., BrowserContext]


# ---------------------------------------------------------------------------------------------------------- the story


def test_a_conversation_outlives_its_tab_and_is_its_owners_alone(site: Site, contexts: Contexts) -> None:
    def log_in(context: BrowserContext, username: str) -> Chat:
        page = context.new_page()
        page.goto(site.url)
        page.get_by_label("Username").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        return Chat(page)

    first = contexts()
    chat = log_in(first, "alice")
    chat.say("Create a task: Review Q4 budget")
    chat.sees("Create a task: Review Q4 budget", "✓ Created")
    session = chat.wait_for_session()
    chat.page.close()

    again = Chat.open(first, site)
    again.sees("Create a task: Review Q4 budget", "✓ Created")
    assert again.session == session

    elsewhere = log_in(contexts(), "alice")
    elsewhere.sees("Create a task: Review Q4 budget", "✓ Created")
    elsewhere.say("Mark it complete")
    expect(elsewhere.message("✓ Marked complete", "assistant")).to_be_visible()
    expect(again.message("✓ Marked complete", "assistant")).to_be_visible()

    stranger = log_in(contexts(), "bob")
    expect(stranger.page.get_by_role("heading", name=", bob")).to_be_visible()
    expect(stranger.conversations).to_contain_text("No conversations yet")
    expect(stranger.rows).to_have_count(0)
    stranger.page.goto(f"{site.url}/?session={session}")
    expect(stranger.page.get_by_role("heading", name="Nothing here")).to_be_visible()
    expect(stranger.page.locator("body")).not_to_contain_text("Review Q4 budget")


def test_login_says_what_is_wrong_and_knows_the_people_of_the_demo(site: Site, contexts: Contexts) -> None:
    page = contexts().new_page()
    page.goto(site.url)
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    page.get_by_role("button", name="bob").click()
    expect(page.get_by_role("button", name="Account of bob")).to_be_visible()
    page.get_by_role("button", name="Account of bob").click()
    page.get_by_role("menuitem", name="Log out").click()
    expect(page).to_have_url(re.compile("/accounts/login/"))


# --------------------------------------------------------------------------------------------------------- many tabs


def test_what_is_said_in_one_tab_appears_in_the_other(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    one = Chat.begin(context, site, "echo", "From the first tab")
    other = Chat.open(context, site, f"/?session={one.session}")
    other.sees("From the first tab", "From the first tab")
    other.say("From the second tab")
    one.sees(*["From the first tab"] * 2, *["From the second tab"] * 2)
    one.say("From the first again")
    other.sees(*["From the first tab"] * 2, *["From the second tab"] * 2, *["From the first again"] * 2)


def test_messages_can_be_changed_and_withdrawn_for_every_tab(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    one = Chat.begin(context, site, "echo", "Frist words")
    one.sees("Frist words", "Frist words")
    other = Chat.open(context, site, f"/?session={one.session}")
    other.sees("Frist words", "Frist words")

    mine = one.message("Frist words")
    mine.hover()
    mine.get_by_role("button", name="Edit").click()
    one.page.get_by_label("Edit your message").fill("First words")
    one.page.keyboard.press("Enter")
    one.sees("First words", "Frist words")
    other.sees("First words", "Frist words")
    expect(other.message("First words")).to_contain_text("Edited")

    mine = one.message("First words")
    mine.hover()
    mine.get_by_role("button", name="Withdraw").click()
    one.confirm("Withdraw")
    one.sees("Frist words")
    other.sees("Frist words")
    one.page.reload()
    one.sees("Frist words")
    expect(one.message("Frist words", "assistant").get_by_role("button", name="Edit")).to_have_count(0)


def test_kiosk_is_handed_over_from_tab_to_tab(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    one = Chat.begin(context, site, "kiosk", "Mine")
    expect(one.message("Mine", "assistant")).to_be_visible()
    one.box.fill("Unsent")

    other = Chat.open(context, site, f"/?session={one.session}")
    expect(other.banner).to_contain_text("being used in another tab")
    expect(other.box).to_be_hidden()
    one.is_writable()

    other.page.get_by_role("button", name="Use it here").click()
    other.is_writable()
    expect(one.banner).to_contain_text("being used in another tab")
    other.say("Mine now")
    expect(one.message("Mine now", "assistant")).to_be_visible()

    one.page.get_by_role("button", name="Use it here").click()
    one.is_writable()
    expect(one.box).to_have_value("Unsent")
    expect(other.banner).to_contain_text("being used in another tab")


def test_notebook_stays_with_its_tab_through_a_reload(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    one = Chat.begin(context, site, "notebook", "Dear diary")
    expect(one.message("Dear diary", "assistant")).to_be_visible()
    one.page.reload()
    expect(one.message("Dear diary", "assistant")).to_be_visible()
    one.is_writable()

    with context.expect_page() as opened:  # a duplicate, with a copy of the tab's own storage
        one.page.evaluate("window.open(location.href)")
    copy = Chat(opened.value)
    expect(copy.banner).to_contain_text("belongs to another tab")
    one.is_writable()
    copy.page.get_by_role("button", name="Continue in a new conversation").click()
    copy.is_writable()
    expect(copy.message("Dear diary", "assistant")).to_be_visible()
    assert copy.session != one.session


def test_companion_is_one_conversation_for_all_tabs(site: Site, context_of: Contexts, guest: str) -> None:
    one = Chat.begin(context_of(guest), site, "companion", "Remember me")
    expect(one.message("Remember me", "assistant")).to_be_visible()
    other = Chat.begin(context_of(guest), site, "companion", "I do")
    assert other.session == one.session
    expect(other.message("Remember me")).to_be_visible()
    expect(one.message("I do", "assistant")).to_be_visible()


# --------------------------------------------------------------------------------------------------------------- time


@pytest.mark.timeout(300)
def test_idle_conversation_expires_by_celery_and_goes_on_in_a_new_one(
    short_lived_site: Site, contexts: Contexts
) -> None:
    site = short_lived_site
    page = contexts().new_page()
    page.goto(site.url)
    page.get_by_role("button", name="alice").click()
    chat = Chat(page)
    chat.say("Create a task: Review Q4 budget")
    chat.sees("Create a task: Review Q4 budget", "✓ Created")
    session = chat.wait_for_session()

    expect(chat.chip).to_contain_text("Expires in", timeout=50_000)
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"0:[0-3]\d"))
    page.get_by_role("button", name="Keep it open").click()
    expect(chat.chip).not_to_contain_text("Expires in")

    with site.api("alice") as api:
        renewed = api.get(f"sessions/{session}").json()
        assert (renewed["status"], renewed["renewal_count"]) == ("active", 1)

        expect(chat.chip).to_contain_text("Expires in", timeout=50_000)
        expect(chat.banner).to_contain_text("This conversation expired", timeout=60_000)
        expect(chat.box).to_be_hidden()
        expect(chat.conversations.get_by_role("link", name="Review Q4 budget")).to_contain_text("Expired")

        def recorded() -> list[dict[str, Any]]:
            events = api.get(f"sessions/{session}/events", params={"after": 0, "limit": 100}).json()["events"]
            return [event for event in events if event["type"] == "session.expired"]

        until = time.monotonic() + 30
        while not recorded() and time.monotonic() < until:
            time.sleep(0.5)
        assert len(recorded()) == 1, site.logs()

    page.get_by_role("button", name="Continue in a new conversation").click()
    chat.is_writable()
    assert chat.session != session
    chat.sees("Create a task: Review Q4 budget", "✓ Created")
    chat.say("Mark it complete")
    expect(chat.message("✓ Marked complete", "assistant")).to_be_visible()


def test_countdown_near_expiry_offers_to_stay_and_unsent_text_survives_the_end(
    site: Site, context_of: Contexts, guest: str
) -> None:
    chat = Chat.open(context_of(guest), site, "/?new=echo")
    chat.page.clock.install()
    chat.page.reload()
    chat.say("Wait for me")
    chat.sees("Wait for me", "Wait for me")
    session = chat.wait_for_session()

    site.age(session, minutes=26)
    chat.page.clock.fast_forward("26:00")
    expect(chat.chip).to_contain_text(re.compile(r"Expires in\s*[34]:\d\d"))
    expect(chat.page.locator("#announcer")).to_contain_text("expires in")
    chat.page.get_by_role("button", name="Keep it open").click()
    expect(chat.chip).not_to_contain_text("Expires in")
    expect(chat.page.get_by_role("button", name="Keep it open")).to_be_hidden()
    with site.api(guest) as api:
        assert api.get(f"sessions/{session}").json()["renewal_count"] == 1

    chat.box.fill("Half a thought")
    site.age(session, minutes=31)
    chat.page.clock.fast_forward("31:00")
    expect(chat.banner).to_contain_text("This conversation expired")
    expect(chat.banner).to_contain_text("idle for longer than its timeout")
    chat.page.get_by_role("button", name="Continue in a new conversation").click()
    chat.is_writable()
    expect(chat.box).to_have_value("Half a thought")
    chat.sees("Wait for me", "Wait for me")


def test_staying_beyond_the_maximum_is_explained(site: Site, context_of: Contexts, guest: str) -> None:
    with site.api(guest) as api:
        limits = {"timeout_minutes": 5, "max_duration_minutes": 5, "warning_threshold_minutes": 4}
        session = api.post("sessions", json={"agent": "echo", "timeout": limits}).json()["id"]
    site.age(session, minutes=2)
    chat = Chat.open(context_of(guest), site, f"/?session={session}")
    chat.page.get_by_role("button", name="Keep it open").click()
    expect(chat.notice).to_contain_text("5 minutes at most")
    chat.page.get_by_role("button", name="Continue in a new one").click()
    chat.page.wait_for_url(lambda url: session not in url)
    chat.is_writable()


def test_a_page_that_nobody_touches_keeps_nothing_alive(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.open(context_of(guest), site, "/?new=echo")
    chat.page.clock.install()
    chat.page.reload()
    chat.say("Hello")
    chat.sees("Hello", "Hello")
    beats: list[str] = []
    chat.page.on("request", lambda request: beats.append(request.url) if "/heartbeat" in request.url else None)
    for _ in range(5):
        chat.page.clock.fast_forward("02:00")
        chat.page.wait_for_timeout(300)
    assert beats == []
    chat.box.press("a")
    with chat.page.expect_response(re.compile("/heartbeat")) as answer:
        chat.page.clock.fast_forward("00:05")
    assert answer.value.status == 200
    chat.page.clock.fast_forward("02:00")
    chat.page.wait_for_timeout(300)
    assert len(beats) == 1


def test_coming_back_is_noticed(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    chat = Chat.begin(context, site, "echo", "Back soon")
    chat.sees("Back soon", "Back soon")
    session = chat.session
    chat.page.close()
    site.age(session, minutes=12)
    back = Chat.open(context, site)
    expect(back.log).to_contain_text("Welcome back after 12 minutes")
    expect(back.chip).to_have_text("Resumed")


def test_ending_asks_first_and_the_end_is_seen_everywhere(site: Site, context_of: Contexts, guest: str) -> None:
    context = context_of(guest)
    one = Chat.begin(context, site, "echo", "Last words")
    one.sees("Last words", "Last words")
    other = Chat.open(context, site, f"/?session={one.session}")
    other.is_writable()

    one.page.get_by_role("button", name="End", exact=True).click()
    one.confirm("Cancel")
    one.is_writable()
    one.page.get_by_role("button", name="End", exact=True).click()
    one.page.get_by_label("Reason (optional)").fill("All said")
    one.page.keyboard.press("Enter")
    expect(one.banner).to_contain_text("This conversation ended")
    expect(one.banner).to_contain_text("All said")
    expect(other.banner).to_contain_text("This conversation ended")
    other.page.get_by_role("button", name="Continue in a new conversation").click()
    other.is_writable()
    other.sees("Last words", "Last words")


# ------------------------------------------------------------------------------------------------------------ trouble


def test_agent_that_fails_leaves_the_question_and_says_so(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.begin(context_of(guest), site, "broken", "Please try")
    question = chat.message("Please try")
    expect(question).to_contain_text("The agent could not answer. Your message is kept.")
    question.get_by_role("button", name="Try again").click()
    with site.api(guest) as api:
        # Not the button's absence: the agent fails in less time than a browser needs to be asked.
        until = time.monotonic() + 10
        while len(api.get(f"sessions/{chat.session}/runs").json()["results"]) < 2:
            assert time.monotonic() < until
            chat.page.wait_for_timeout(50)
    expect(question).to_contain_text("The agent could not answer")
    chat.page.reload()
    chat.sees("Please try")
    expect(question.get_by_role("button", name="Try again")).to_be_visible()
    chat.is_writable()
    with site.api(guest) as api:
        runs = api.get(f"sessions/{chat.session}/runs").json()["results"]
    assert [run["status"] for run in runs] == ["failed", "failed"]


def test_agent_that_is_away_leaves_the_text_in_the_box(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.begin(context_of(guest), site, "unavailable", "Anybody home?")
    expect(chat.notice).to_contain_text("not available right now")
    expect(chat.box).to_have_value("Anybody home?")
    expect(chat.messages).to_have_count(0)


def test_markup_stays_text(site: Site, context_of: Contexts, guest: str) -> None:
    evil = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 2</script>'
    chat = Chat.begin(context_of(guest), site, "echo", evil)
    chat.sees(evil, evil)
    expect(chat.title).to_contain_text("<img src=x")
    expect(chat.conversations).to_contain_text("<img src=x")
    chat.say("javascript:alert(1) and https://example.com/a?b=c, then")
    link = chat.message("example.com", "assistant").get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.com/a?b=c")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    expect(
        chat.page.locator(".log :is(img, script), .sidebar .list :is(img, script), h1 :is(img, script)")
    ).to_have_count(0)
    chat.page.reload()
    expect(chat.message("javascript:", "assistant")).to_be_visible()
    assert chat.page.evaluate("window.hacked") is None


# ------------------------------------------------------------------------------------------------------- conversations


def test_conversations_are_found_paged_and_reopened_by_address(site: Site, context_of: Contexts, guest: str) -> None:
    with site.api(guest) as api:
        for number in range(35):
            assert api.post("sessions", json={"agent": "echo", "title": f"Note {number}"}).status_code == 201
    chat = Chat.open(context_of(guest), site)
    expect(chat.title).to_have_text("Note 34")
    expect(chat.rows).to_have_count(30)
    chat.conversations.get_by_role("button", name="Show more").click()
    expect(chat.rows).to_have_count(35)

    chat.page.keyboard.press("Control+k")
    chat.page.keyboard.type("note 7")
    expect(chat.rows).to_have_count(1)
    chat.rows.get_by_role("link").click()
    expect(chat.title).to_have_text("Note 7")
    session = chat.session
    chat.page.reload()
    expect(chat.title).to_have_text("Note 7")
    assert chat.session == session
    chat.page.go_back()
    expect(chat.title).to_have_text("Note 34")


def test_long_conversations_are_read_backwards_page_by_page(site: Site, context_of: Contexts, guest: str) -> None:
    with site.api(guest) as api:
        history = [{"role": "user", "content": f"Line {number}"} for number in range(130)]
        session = api.post("sessions", json={"agent": "echo", "messages": history}).json()["id"]
    chat = Chat.open(context_of(guest), site, f"/?session={session}")
    expect(chat.page.get_by_text("Line 129", exact=True)).to_be_in_viewport()
    expect(chat.messages).to_have_count(50)
    middle = chat.page.get_by_text("Line 82", exact=True)
    middle.scroll_into_view_if_needed()
    expect(chat.messages).not_to_have_count(50)
    expect(middle).to_be_in_viewport()
    expect(chat.page.get_by_role("button", name="Latest")).to_be_visible()
    for line in (55, 30, 5):
        chat.page.get_by_text(f"Line {line}", exact=True).scroll_into_view_if_needed()
    expect(chat.messages).to_have_count(130)
    chat.sees(*[f"Line {number}" for number in range(130)])
    chat.page.get_by_role("button", name="Latest").click()
    expect(chat.page.get_by_text("Line 129", exact=True)).to_be_in_viewport()


def test_a_conversation_can_be_renamed_exported_and_deleted(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.begin(context_of(guest), site, "echo", "Hello there")
    chat.sees("Hello there", "Hello there")
    chat.page.get_by_role("button", name="Rename this conversation").click()
    chat.page.get_by_label("Title").fill("A better name")
    chat.page.keyboard.press("Enter")
    expect(chat.title).to_have_text("A better name")
    expect(chat.conversations).to_contain_text("A better name")
    expect(chat.page).to_have_title(re.compile("A better name"))

    for label, content in (("Markdown", "Hello there"), ("JSON", '"format_version"')):
        chat.page.get_by_role("button", name="Export this conversation").click()
        with chat.page.expect_download() as download:
            chat.page.get_by_role("menuitem", name=label).click()
        assert content in download.value.path().read_text()

    chat.page.get_by_role("button", name="More about this conversation").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    chat.confirm("Delete")
    expect(chat.rows).to_have_count(0)
    expect(chat.page.get_by_role("heading", name=guest)).to_be_visible()


def test_a_branch_starts_from_any_message(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.begin(context_of(guest), site, "echo", "One")
    chat.sees("One", "One")
    chat.say("Two")
    chat.sees("One", "One", "Two", "Two")
    session = chat.session
    answer = chat.message("One", "assistant")
    answer.hover()
    answer.get_by_role("button", name="Branch from here").click()
    chat.sees("One", "One")
    assert chat.session != session


# -------------------------------------------------------------------------------------------------- for everybody


def test_everything_can_be_done_with_the_keyboard(site: Site, contexts: Contexts, guest: str) -> None:
    page = contexts().new_page()
    page.goto(site.url)
    keyboard = page.keyboard
    keyboard.type(guest)  # the first field has the focus
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    chat = Chat(page)
    expect(chat.box).to_be_focused()
    keyboard.press("Control+Shift+o")
    page.get_by_role("radio", name="Tasks").focus()
    keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Echo", exact=True)).to_be_checked()
    keyboard.press("Escape")
    expect(chat.box).to_be_focused()
    keyboard.type("One line")
    keyboard.press("Shift+Enter")
    keyboard.type("and another")
    keyboard.press("Enter")
    chat.sees("One line\nand another", "One line\nand another")
    chat.wait_for_session()

    keyboard.press("ArrowUp")
    expect(page.get_by_label("Edit your message")).to_be_focused()
    keyboard.press("Control+a")
    keyboard.type("Just one")
    keyboard.press("Enter")
    chat.sees("Just one", "One line\nand another")

    keyboard.press("Control+Shift+o")
    expect(chat.box).to_be_focused()
    keyboard.press("Control+k")
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    chat.sees("Just one", "One line\nand another")
    expect(chat.box).to_be_focused()


def test_menus_and_dialogs_take_the_keyboard_and_give_the_focus_back(
    site: Site, context_of: Contexts, guest: str
) -> None:
    chat = Chat.begin(context_of(guest), site, "echo", "Hello")
    chat.sees("Hello", "Hello")
    page, keyboard = chat.page, chat.page.keyboard
    page.get_by_role("button", name="More about this conversation").focus()
    keyboard.press("Enter")
    keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Details")).to_be_focused()
    keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("About this conversation")
    keyboard.press("Escape")
    expect(page.get_by_role("button", name="More about this conversation")).to_be_focused()

    page.get_by_role("button", name="End", exact=True).focus()
    keyboard.press("Enter")
    keyboard.type("Enough")
    keyboard.press("Enter")
    expect(chat.banner).to_contain_text("Enough")
    page.get_by_role("button", name="Continue in a new conversation").focus()
    keyboard.press("Enter")
    chat.is_writable()
    expect(chat.box).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_labelled_and_legible(
    site: Site, context_of: Contexts, contexts: Contexts, guest: str, scheme: str
) -> None:
    def check(what: str) -> None:
        page.wait_for_timeout(400)  # colours that are on their way arrive
        assert page.evaluate(FAULTS) == [], what

    page = contexts(color_scheme=scheme).new_page()
    page.goto(site.url)
    check("login")

    chat = Chat.open(context_of(guest, color_scheme=scheme), site)
    page = chat.page
    expect(page.get_by_role("radio", name="Tasks")).to_be_checked()
    check("new conversation")
    page.get_by_role("radio", name="Broken").check(force=True)
    chat.say("Anything")
    expect(chat.message("Anything")).to_contain_text("The agent could not answer")
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "polite")
    check("talk")
    page.get_by_role("button", name="More about this conversation").click()
    check("menu")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="End", exact=True).click()
    check("dialog")
    chat.confirm("End conversation")
    expect(chat.banner).to_be_visible()
    check("over")


def test_theme_is_chosen_and_kept(site: Site, context_of: Contexts, guest: str) -> None:
    chat = Chat.open(context_of(guest, color_scheme="light"), site)
    ground = "getComputedStyle(document.body).backgroundColor"
    before = chat.page.evaluate(ground)
    chat.page.get_by_role("button", name=re.compile("Account of")).click()
    chat.page.get_by_role("menuitemradio", name="Dark").click()
    dark = chat.page.evaluate(ground)
    assert dark != before
    chat.page.reload()
    assert chat.page.evaluate(ground) == dark


def test_phone_has_a_drawer_and_nothing_sticks_out(site: Site, context_of: Contexts, guest: str) -> None:
    phone = {"viewport": {"width": 375, "height": 700}, "has_touch": True, "is_mobile": True}
    chat = Chat.begin(
        context_of(guest, **phone), site, "echo", "A word that is rather long: " + "honorificabilitudinitatibus" * 5
    )
    expect(chat.messages).to_have_count(2)
    page = chat.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    expect(page.get_by_label("Search conversations")).to_be_hidden()
    page.get_by_role("button", name="Show the list of conversations").tap()
    expect(page.get_by_label("Search conversations")).to_be_visible()
    page.get_by_role("button", name="New conversation").tap()
    expect(page.get_by_label("Search conversations")).to_be_hidden()
    expect(page.get_by_role("radio", name="Echo", exact=True)).to_be_checked()
    page.get_by_role("button", name="Show the list of conversations").tap()
    chat.rows.get_by_role("link").first.tap()
    expect(chat.messages).to_have_count(2)
    page.get_by_role("button", name="More about this conversation").tap()
    expect(page.get_by_role("menuitem", name="End conversation")).to_be_visible()
    page.get_by_role("menuitem", name="End conversation").tap()
    chat.confirm("End conversation")
    expect(chat.banner).to_contain_text("This conversation ended")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
