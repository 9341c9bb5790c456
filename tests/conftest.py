"""What every test can ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests import databases

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from playwright.sync_api import Browser
    from rest_framework.test import APIClient

#: What `@pytest.mark.services` can name, and where its address is.
SERVICES = {"redis": "REDIS_URL", "amqp": "AMQP_URL"}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

hypothesis_settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
)
hypothesis_settings.load_profile("suite")


# ------------------------------------------------------------------------------------------------------ what can run


def pytest_report_header() -> str:
    from django.db import connection

    return f"database: {connection.vendor}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("browser")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    from django.db import connection

    for vendor, marker in (("postgresql", "postgres"), ("sqlite", "sqlite")):
        if item.get_closest_marker(marker) and connection.vendor != vendor:
            pytest.skip(f"only on {vendor}")
    if item.get_closest_marker("services") and item.get_closest_marker("slow") and connection.vendor == "sqlite":
        pytest.skip("a service does not know the database: once is enough, on PostgreSQL")
    for marker in item.iter_markers("services"):
        for name in marker.args:
            _need(bool(os.environ.get(SERVICES[name])), f"needs {name}: {SERVICES[name]} is not set")
    if item.get_closest_marker("browser"):
        _need(bool(_chromium()), "needs Chromium, which is not installed (or not where CHROMIUM says)")


def _need(there: bool, otherwise: str) -> None:
    """Skip without it; in CI, where everything has to be there, fail."""
    if there:
        return
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{otherwise}, and REQUIRE_SERVICES=1", pytrace=False)
    pytest.skip(otherwise)


def _chromium() -> str | None:
    given = os.environ.get("CHROMIUM")
    return shutil.which(given) if given else next(filter(None, map(shutil.which, CHROMIUM)), None)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Let answers be finished, and stop the threads that carry news: no connection of theirs survives a test."""
    yield
    from django_chat_sessions import notifications
    from django_chat_sessions.operations.runner import RUNNER

    assert RUNNER.wait(10)
    notifications.reset()


# ----------------------------------------------------------------------------------------------------- other processes


@pytest.fixture
def database_url() -> str:
    """Return the URL of the test database, for another process; use it with ``transactional_db``."""
    from django.db import connection

    return databases.url_of(connection.settings_dict)


@pytest.fixture
def subprocess_environment(database_url: str) -> dict[str, str]:
    """Return an environment in which another process, with these settings, works on the test database."""
    ours = {"TEST_DATABASE": "url", "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    return {**os.environ, **ours}


@pytest.fixture
def redis_url() -> str:
    """Return where Redis is; for tests marked ``services("redis")``."""
    return os.environ["REDIS_URL"]


@pytest.fixture
def amqp_url() -> str:
    """Return where RabbitMQ is; for tests marked ``services("amqp")``."""
    return os.environ["AMQP_URL"]


# ------------------------------------------------------------------------------------------------------------- people


@pytest.fixture
def alice(db: None, django_user_model: type[User]) -> User:
    return django_user_model.objects.create_user("alice", password="demo")


@pytest.fixture
def bob(db: None, django_user_model: type[User]) -> User:
    return django_user_model.objects.create_user("bob", password="demo")


@pytest.fixture
def api_of() -> Callable[[Any], APIClient]:
    """Return a function that gives a user's API client; with a tab's name if ``client`` says so."""
    from rest_framework.test import APIClient

    def api_of(user: Any, *, client: str | None = None) -> APIClient:
        api = APIClient(headers={"X-Chat-Client": client} if client else None)
        api.force_authenticate(user)
        return api

    return api_of


# ------------------------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium; for tests marked ``browser``.

    Playwright's event loop runs in the thread of the test, where Django would refuse to touch the database; hence
    only as long as the module, so that no other test is let off.
    """
    from playwright.sync_api import sync_playwright

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        chromium = playwright.chromium.launch(
            executable_path=_chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()
