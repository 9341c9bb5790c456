"""Settings of the processes that the tests start: the suite's, and a place for archives."""

import os

from tests.faults import processes
from tests.settings import *  # noqa: F403

__all__ = ["processes"]

_FILES = "django.core.files.storage.FileSystemStorage"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "archives": {"BACKEND": _FILES, "OPTIONS": {"location": os.environ.get("TEST_ARCHIVES", "")}},
}
