"""The page, in the words of those who use it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

    from .conftest import Site

expect.set_options(timeout=15_000)

FAULTS = (Path(__file__).parent / "faults.js").read_text()

WATCH = """() => {
  window.seen = [];
  const look = () => {
    const text = [...document.querySelectorAll(".msg[data-role=assistant] .bubble")].at(-1)?.textContent;
    if (text && text !== window.seen.at(-1)) window.seen.push(text);
  };
  const everything = {subtree: true, childList: true, characterData: true};
  new MutationObserver(look).observe(document.getElementById("log"), everything);
}"""


class Chat:
    """One tab with the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.get_by_label("Message", exact=True)
        self.log = page.get_by_role("log")
        self.messages = self.log.get_by_role("article")
        self.title = page.get_by_role("heading", level=1)
        self.conversations = page.get_by_role("navigation", name="Conversations")
        self.rows = self.conversations.get_by_role("listitem")
        self.banner = page.locator("#banner")
        self.chip = page.locator("#chip")
        self.notice = page.locator("#notice")
        self.line = page.locator("#strip")
        self.stop = page.get_by_role("button", name="Stop the answer")
        self.partial = self.log.locator(".msg[data-state=partial] .bubble")
        self.answer = self.log.locator(".msg[data-role=assistant]").last

    @classmethod
    def open(cls, context: BrowserContext, site: Site, path: str = "/") -> Chat:
        page = context.new_page()
        page.goto(site.url + path)
        return cls(page)

    @classmethod
    def begin(cls, context: BrowserContext, site: Site, agent: str, text: str | None = None) -> Chat:
        """Open a new conversation, and say the first thing in it."""
        chat = cls.open(context, site, f"/?new={agent}")
        if text is not None:
            chat.say(text)
            chat.wait_for_session()
        return chat

    def say(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def wait_for_session(self) -> str:
        """Wait for the address to name a conversation, and return its id."""
        self.page.wait_for_url(re.compile(r"[?&]session="))
        expect(self.chip).to_be_visible()
        return self.session

    @property
    def session(self) -> str:
        address = self.page.evaluate("location.search")
        found = re.search(r"session=([0-9a-f-]{36})", address)
        assert found, address
        return found[1]

    def message(self, text: str | re.Pattern[str], role: str = "user") -> Locator:
        words = self.page.locator(".bubble").filter(has_text=text)
        return self.page.locator(f".msg[data-role={role}]").filter(has=words)

    def sees(self, *texts: str) -> None:
        """Expect exactly these messages, in this order."""
        expect(self.log.locator(".bubble:not([hidden])")).to_have_text(list(texts))

    def says(self, text: str) -> None:
        """Expect the agent to be in the middle of an answer, and to have said so much of it."""
        expect(self.partial).to_contain_text(text)

    def watch(self) -> None:
        """Note down whatever is seen of answers, from now on."""
        self.page.evaluate(WATCH)

    @property
    def seen(self) -> list[str]:
        """What has been seen of the answer being given, look by look."""
        texts: list[str] = self.page.evaluate("window.seen")
        return texts

    def text(self) -> str:
        """What is to be seen of the last answer now."""
        return str(self.answer.locator(".bubble").text_content())

    def confirm(self, name: str) -> None:
        self.page.get_by_role("dialog").get_by_role("button", name=name).click()

    def is_writable(self) -> None:
        expect(self.box).to_be_visible()
        expect(self.banner).to_be_hidden()
