"""Archives: which there are, and which files are to go; to read, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from django_chat_sessions.models import Archive, ChatSession
from tests.admin.conftest import keys, page, staff

pytestmark = pytest.mark.django_db

ARCHIVES = "/admin/chat_sessions/archive/"


@pytest.fixture
def archivist() -> Client:
    return staff("archivist", "view_chatsession", "view_archive")


@pytest.fixture
def shelve() -> Callable[..., Archive]:
    """Return a function that notes the file of a session, or of none any more."""

    def shelve(session: ChatSession | None, name: str, **fields: Any) -> Archive:
        now = timezone.now()
        instants = {"leased_until": now, "created_at": now}
        return Archive.objects.create(session=session, name=name, storage="archives", **instants, **fields)

    return shelve


def test_archives_are_listed_with_their_sessions(archivist: Client, shelve: Any, talk: Any) -> None:
    session = talk("Hello")
    kept, unwanted = shelve(session, "kept.gz", size=10, events=3), shelve(None, "unwanted.gz")
    shown = archivist.get(ARCHIVES)
    assert keys(shown) == [unwanted.pk, kept.pk]
    body = shown.content.decode()
    assert page(session) in body
    assert "none: to be removed" in body


def test_an_archive_is_found_by_its_session(archivist: Client, shelve: Any, talk: Any) -> None:
    session = talk("Hello")
    archive = shelve(session, "kept.gz")
    shelve(talk("Hello"), "other.gz")
    assert keys(archivist.get(ARCHIVES, {"q": str(session.uuid)})) == [archive.pk]


def test_the_list_of_archives_costs_the_same_for_many(
    archivist: Client, shelve: Any, talk: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(10):
        shelve(talk(), f"{number}.gz")
    with django_assert_max_num_queries(6):
        archivist.get(ARCHIVES)


def test_an_archive_is_shown_and_changed_by_nobody(boss: Client, shelve: Any, talk: Any) -> None:
    for archive in (shelve(talk(), "one.gz", sha256="a" * 64), shelve(None, "two.gz")):
        address = f"{ARCHIVES}{archive.pk}/change/"
        assert archive.name in boss.get(address).content.decode()
        assert boss.post(address, {"name": "x"}).status_code == 403
        assert boss.post(f"{ARCHIVES}{archive.pk}/delete/", {"post": "yes"}).status_code == 403
    assert boss.get(f"{ARCHIVES}add/").status_code == 403


def test_a_user_whose_session_has_an_archive_is_deleted_in_the_admin(boss: Client, shelve: Any, talk: Any) -> None:
    session = talk("Hello")
    archive = shelve(session, "kept.gz")
    assert boss.post(f"/admin/auth/user/{session.owner_id}/delete/", {"post": "yes"}).status_code == 302
    assert not ChatSession.objects.exists()
    archive.refresh_from_db()
    assert archive.session is None
