"""Checks of where archived logs are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004
from django.core.files.storage import Storage, storages

from django_chat_sessions import conf

from .configuration import TAG, is_sound

#: Django's own aliases, whose files web servers give out: uploads, and what pages are made of.
SERVED = ("default", "staticfiles")


@register(TAG)
def check_archive_storage(**_: Any) -> list[CheckMessage]:
    """Check that the storage of archives is there, and is none whose files anybody may fetch."""
    alias = conf.get().ARCHIVE_STORAGE if is_sound() else None
    if alias is None:
        return []
    try:
        storage = storages[alias]
    except Exception as error:  # noqa: BLE001 - a backend raises what it likes when it is built
        hint = "Name an alias of the setting STORAGES that can be built, or None, which writes no archives."
        text = f"ARCHIVE_STORAGE, {alias!r}, cannot be had: {type(error).__name__}."
        return [Error(text, hint=hint, id="chat_sessions.E013")]
    if alias not in SERVED and not _is_served(storage):
        return []
    text = f"ARCHIVE_STORAGE, {alias!r}, is a storage whose files are usually given to anybody."
    hint = "Archives hold what people said. Give them a storage of their own in STORAGES, outside of MEDIA_ROOT and"
    hint += " STATIC_ROOT and without a public address; silence this check where nobody can fetch from it."
    return [Warning(text, hint=hint, id="chat_sessions.W013")]


def _is_served(storage: Storage) -> bool:
    """Tell whether a storage keeps its files in a directory that the web server has."""
    location = getattr(storage, "location", None)
    roots = [getattr(django_settings, name, None) for name in ("MEDIA_ROOT", "STATIC_ROOT")]
    if not isinstance(location, str) or not location.startswith("/"):
        return False
    return any(Path(location).resolve().is_relative_to(Path(root).resolve()) for root in roots if root)
