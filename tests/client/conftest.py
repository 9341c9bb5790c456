"""The example with its ASGI server and, on the same database, a WSGI server that can't stream."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser.conftest import PASSWORD, Site, context_of, contexts, free_port, serve

__all__ = ["context_of", "contexts"]

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the example, which gives its answers itself; once for all tests."""
    yield from serve(tmp_path_factory.mktemp("client"), DJANGO_SETTINGS_MODULE="tests.client.settings")


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """Serve the example for one test, which may kill it."""
    yield from serve(tmp_path, DJANGO_SETTINGS_MODULE="tests.client.settings")


@pytest.fixture(scope="session")
def wsgi_url(site: Site) -> str:
    """Serve the same under WSGI."""
    url = f"http://127.0.0.1:{free_port()}"
    site.start("wsgi", "-m", "django", "runserver", "--noreload", url.removeprefix("http://"))
    wait = Site(url, site.directory, site.environment)
    wait.wait()
    return url


def token(site: Site, username: str) -> str:
    answer = httpx.post(f"{site.url}/api/token", json={"username": username, "password": PASSWORD}, timeout=30)
    found: str = answer.json()["token"]
    return found


def node_environment(site: Site, **more: str) -> dict[str, str]:
    """Return the environment of a Node process that talks to a site."""
    tokens = {"CHAT_TOKEN": token(site, "guest0"), "CHAT_OTHER_TOKEN": token(site, "guest1")}
    return {**os.environ, "CHAT_URL": site.url, **tokens, **more}
