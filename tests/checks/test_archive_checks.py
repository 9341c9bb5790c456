"""Checks of where archived logs are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checks.test_project_checks import ids

FILES = "django.core.files.storage.FileSystemStorage"


def _storages(settings: Any, **backends: dict[str, Any]) -> None:
    settings.STORAGES = {**settings.STORAGES, **backends}


def test_without_archives_nothing_is_asked_of_storages(settings: Any) -> None:
    settings.CHAT_SESSIONS = {}
    assert ids() == []


def test_the_storage_of_archives_has_to_be_there(settings: Any) -> None:
    settings.CHAT_SESSIONS = {"ARCHIVE_STORAGE": "nowhere"}
    assert ids() == ["E013"]
    _storages(settings, nowhere={"BACKEND": "no.such.Storage"})
    assert ids() == ["E013"]
    _storages(settings, nowhere={"BACKEND": FILES, "OPTIONS": {"no_such": "option"}})
    assert ids() == ["E013"]
    _storages(settings, nowhere={"BACKEND": "django.core.files.storage.InMemoryStorage"})
    assert ids() == []


@pytest.mark.parametrize("alias", ["default", "staticfiles"])
def test_archives_do_not_belong_among_uploads_and_static_files(settings: Any, alias: str) -> None:
    settings.CHAT_SESSIONS = {"ARCHIVE_STORAGE": alias}
    assert ids() == ["W013"]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("media", ["W013"]), ("media/archives", ["W013"]), ("static", ["W013"]), ("archives", []), ("media-not", [])],
)
def test_archives_do_not_belong_below_what_is_served(
    settings: Any, tmp_path: Path, folder: str, expected: list[str]
) -> None:
    settings.MEDIA_ROOT, settings.STATIC_ROOT = str(tmp_path / "media"), str(tmp_path / "static")
    settings.CHAT_SESSIONS = {"ARCHIVE_STORAGE": "archives"}
    _storages(settings, archives={"BACKEND": FILES, "OPTIONS": {"location": str(tmp_path / folder)}})
    assert ids() == expected


def test_a_storage_without_a_directory_of_its_own_is_that_of_uploads(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    settings.CHAT_SESSIONS = {"ARCHIVE_STORAGE": "archives"}
    _storages(settings, archives={"BACKEND": FILES})
    assert ids() == ["W013"]
