"""The JavaScript client under Node and in Chromium, on wires that are really cut."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Site
from tests.client.conftest import HERE, node_environment
from tests.conftest import _need
from tests.docs import pages

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

# The example has a database of its own, so once is enough.
pytestmark = [pytest.mark.slow, pytest.mark.sqlite]

CLIENT = pages.ROOT / "django_chat_sessions/static/chat_sessions/client.js"
PAGE = pages.DOCS / "client.md"
OFFLINE = [path for path in sorted(HERE.glob("*.test.mjs")) if path.name != "server.test.mjs"]
SOON = 10_000


@pytest.fixture(scope="module")
def node() -> str:
    """Return Node, at least version 20."""
    found = shutil.which("node")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout if found else "v0"
    _need(int(version[1:].partition(".")[0]) >= 20, "needs Node 20, which is not installed")
    return str(found)


def run_tests(node: str, path: Path, environment: dict[str, str] | None = None) -> str:
    """Run a file with Node's own test runner."""
    command = [node, "--test", "--test-reporter=tap", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert int(re.findall(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[0]) > 0
    return done.stdout


# ---------------------------------------------------------------------------------------------------------------- Node


@pytest.mark.parametrize("path", OFFLINE, ids=lambda path: path.name.partition(".")[0])
def test_client_does_in_node(node: str, path: Path) -> None:
    run_tests(node, path)


@pytest.mark.slow
def test_client_gets_on_with_the_server(node: str, site: Site, wsgi_url: str) -> None:
    said = run_tests(node, HERE / "server.test.mjs", node_environment(site, CHAT_WSGI_URL=wsgi_url))
    assert re.findall(r"^# skipped (\d+)$", said, re.MULTILINE) == ["0"]


@pytest.mark.slow
def test_stream_goes_on_after_the_server_was_killed_and_started_again(node: str, own_site: Site) -> None:
    api = own_site.api("guest0")
    session = api.post("sessions", json={"agent": "echo"}).json()["id"]

    def say(text: str) -> None:
        body = {"content": text, "delivery": "store"}
        assert api.post(f"sessions/{session}/messages", json=body).status_code == 201

    say("before")
    follower = subprocess.Popen(
        [node, str(HERE / "restarted.mjs")],
        env=node_environment(own_site, CHAT_SESSION=session),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout
    assert follower.stdin
    assert [follower.stdout.readline() for _ in range(2)] == ["state open\n", "message before\n"]

    own_site.kill("server")
    assert follower.stdout.readline() == "state offline\n"
    own_site.serve()
    own_site.wait()
    say("after")
    lines = []
    while "message after\n" not in lines:
        lines.append(follower.stdout.readline())
        assert lines[-1], lines
    assert [line for line in lines if line.startswith("message")] == ["message after\n"]
    follower.stdin.close()
    assert follower.wait(30) == 0


def test_example_for_node_is_a_client(node: str, site: Site) -> None:
    [block] = pages.blocks("javascript", page=PAGE)
    script = f"""
        import {{ createClient }} from "{CLIENT.as_uri()}";
        {block.code.replace("https://example.com", site.url)}
        console.log((await client.sessions.open({{ agent: "echo" }})).agent);
    """
    command = [node, "--input-type=module", "--eval", script]
    done = subprocess.run(command, env=node_environment(site), capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("echo\n", "")


# ------------------------------------------------------------------------------------------------------------ Chromium


@pytest.fixture
def tab(context_of: Callable[..., BrowserContext], site: Site) -> Page:
    """Open a page of the site in which the client is at hand, as `chat`."""
    return equipped(context_of("guest2").new_page(), site)


def equipped(page: Page, site: Site) -> Page:
    page.goto(f"{site.url}/api/chat/sessions/health")
    page.evaluate((HERE / "pieces.js").read_text())
    return page


def becomes(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=SOON)


@pytest.mark.browser
def test_page_writes_with_its_login_and_csrf_token(tab: Page) -> None:
    tab.evaluate("chat.open('echo')")
    said = tab.evaluate("chat.session.messages.post({ content: 'Grüße 🦄' })")
    assert said["reply"]["content"] == "Grüße 🦄"


@pytest.mark.browser
def test_answer_streams_into_a_page(tab: Page) -> None:
    tab.evaluate("chat.open()")
    texts = tab.evaluate(
        """async () => {
            const texts = [];
            const stream = await chat.session.messages.post({ content: "eins zwei drei vier", delivery: "stream" });
            for await (const { type, data } of stream) if (type === "message.delta") texts.push(data.text);
            return texts;
        }"""
    )
    assert "".join(texts) == "eins zwei drei vier"
    assert len(texts) > 1


@pytest.mark.browser
def test_page_that_was_offline_gets_what_it_missed_as_soon_as_it_is_back(tab: Page, site: Site) -> None:
    session = tab.evaluate("chat.open('echo')")
    tab.evaluate("chat.listen({ after: 1, minDelay: 60_000, maxDelay: 60_000 })")
    becomes(tab, "chat.stream.state === 'open'")
    tab.context.set_offline(True)
    becomes(tab, "chat.stream.state === 'offline'")
    api = site.api("guest2")
    for text in ("one", "two"):
        api.post(f"sessions/{session}/messages", json={"content": text, "delivery": "store"})
    tab.wait_for_timeout(300)
    assert tab.evaluate("chat.frames.length") == 0
    tab.context.set_offline(False)
    becomes(tab, "chat.frames.length === 2")
    assert tab.evaluate("chat.said()") == ["one", "two"]
    assert tab.evaluate("chat.states") == ["open", "offline", "open"]


@pytest.mark.browser
def test_hidden_tab_lets_go_of_its_connection_and_comes_back(tab: Page, site: Site) -> None:
    session = tab.evaluate("chat.open('echo')")
    tab.evaluate("chat.listen({ after: 1, hiddenAfter: 200 })")
    becomes(tab, "chat.stream.state === 'open'")
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url.partition(session)[2]))
    tab.evaluate("chat.hide(true)")
    tab.wait_for_timeout(1_000)
    assert asked == ["/events?after=1&wait=0&limit=100"]
    site.api("guest2").post(f"sessions/{session}/messages", json={"content": "one", "delivery": "store"})
    tab.wait_for_timeout(500)
    assert tab.evaluate("chat.frames.length") == 0
    tab.evaluate("chat.hide(false)")
    becomes(tab, "chat.frames.length === 1")
    assert asked[1:] == ["/stream"]


@pytest.mark.browser
def test_tab_keeps_its_name_and_a_duplicate_gets_another(tab: Page, site: Site) -> None:
    name = tab.evaluate("chat.client.tabId()")
    assert equipped(tab, site).evaluate("chat.client.tabId()") == name
    with tab.expect_popup() as opened:
        tab.evaluate("void window.open(location.href)")
    duplicate = equipped(opened.value, site)
    assert duplicate.evaluate("sessionStorage.length") == 1
    assert duplicate.evaluate("chat.client.tabId()") != name
    assert tab.evaluate("chat.client.tabId()") == name


@pytest.mark.browser
def test_page_that_somebody_uses_keeps_its_session_alive(tab: Page) -> None:
    tab.evaluate("chat.open('echo')")
    tab.evaluate("chat.alive = chat.session.keepAlive({ every: 500 }); 0")
    becomes(tab, "chat.alive.session")
    beats: list[str] = []
    tab.on("request", lambda request: beats.append(request.url) if request.url.endswith("/heartbeat") else None)
    tab.wait_for_timeout(1_500)
    assert beats == []
    before = tab.evaluate("chat.alive.session.expires_at")
    tab.keyboard.press("a")
    becomes(tab, f"chat.alive.session.expires_at > '{before}'")
    assert len(beats) == 1
    tab.evaluate("chat.hide(true)")
    tab.keyboard.press("a")
    tab.wait_for_timeout(1_500)
    assert len(beats) == 1


# ------------------------------------------------------------------------------------------------- the documentation


def served(page: Page, site: Site, path: str, body: str, kind: str) -> None:
    """Let a page find something on the site that is only in the documentation."""
    headers = {"Content-Type": f"{kind}; charset=utf-8"}
    page.route(f"{site.url}{path}*", lambda route: route.fulfill(body=body, headers=headers))


@pytest.mark.browser
def test_page_of_the_documentation_chats(context_of: Callable[..., BrowserContext], site: Site) -> None:
    [block] = pages.blocks("html", page=PAGE)
    context = context_of("guest3")

    def opened(address: str) -> Page:
        page = context.new_page()
        served(page, site, "/example.html", block.code, "text/html")
        page.goto(address)
        return page

    first = opened(f"{site.url}/example.html")
    first.wait_for_url("**session=*")
    words = " ".join(f"word{n}" for n in range(20))
    first.get_by_label("Message").fill(words)
    first.get_by_role("button", name="Send").click()
    partial = first.locator("li.partial")
    partial.wait_for()
    second = opened(first.url)
    second.locator("li.partial").wait_for()
    assert second.locator("li.partial").inner_text().startswith("word0 word1")
    second.get_by_role("button", name="Stop").click()
    for page in (first, second):
        becomes(page, "!document.querySelector('.partial') && document.querySelectorAll('li').length === 2")
        assert words.startswith(page.locator("li.assistant").inner_text())
        assert not page.get_by_role("button", name="Stop").is_visible()
    assert first.locator("li").all_inner_texts() == second.locator("li").all_inner_texts()
    first.context.set_offline(True)
    becomes(first, "document.getElementById('line').textContent.startsWith('No connection')")
    first.context.set_offline(False)
    becomes(first, "!document.getElementById('line').textContent")


@pytest.mark.browser
def test_scripts_of_the_documentation_run(tab: Page, site: Site) -> None:
    code = "\n".join(block.code for block in pages.blocks("js", page=PAGE))
    told = "export { opened, message, reply, state, edited, another, said, trouble, frames, alive };"
    first = 'stream.on("*", '
    hooked = code.replace(first, f"const frames = [];\n{first}(frame) => frames.push(frame));\n{first}")
    served(tab, site, "/example.js", f"{hooked}\n{told}", "text/javascript")
    tab.evaluate("import('/example.js').then((told) => { window.told = told; })")
    becomes(tab, "told.alive.session && document.title === 'Chat' && told.frames.length")
    told = tab.evaluate("({ ...told, alive: told.alive.remaining, frames: [] })")
    assert told["reply"]["content"] == "Good morning"
    assert told["state"] == {"mood": "fine"}
    assert told["edited"]["content"] == "Good evening"
    assert told["another"]["content"] == "Good evening"
    assert told["said"] == "Say it slowly"
    assert "permission" in told["trouble"]
    assert told["alive"] > 60


@pytest.mark.browser
@pytest.mark.skipif("REACT_UMD" not in os.environ, reason="REACT_UMD names no directory with React's UMD builds")
def test_hooks_of_the_documentation_follow_and_let_go(tab: Page, site: Site) -> None:
    for name in ("react.development.js", "react-dom.development.js", "babel.min.js"):
        tab.add_script_tag(path=Path(os.environ["REACT_UMD"], name))
    blocks = "\n".join(block.code for block in pages.blocks("jsx", page=PAGE))
    code = re.sub(r"^import .*$", "", blocks, flags=re.MULTILINE).replace("export function", "function")
    session = tab.evaluate("chat.open()")
    tab.evaluate((HERE / "hooks.js").read_text(), code)
    becomes(tab, "Number(document.querySelector('output').textContent) > 60")
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    words = " ".join(f"word{n}" for n in range(20))
    tab.evaluate("(content) => void chat.session.messages.post({ content, delivery: 'background' })", words)
    tab.locator("p.assistant").wait_for()
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_role("button", name="Stop").wait_for(state="detached")
    assert words.startswith(tab.locator("p.assistant").inner_text())
    tab.evaluate("chat.root.unmount()")
    asked.clear()
    site.api("guest2").post(f"sessions/{session}/messages", json={"content": "later", "delivery": "store"})
    time.sleep(4)
    tab.wait_for_timeout(100)
    assert asked == []
