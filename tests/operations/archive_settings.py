"""Settings of a process that is killed as soon as it has written an archive."""

import os

from tests.settings import *  # noqa: F403

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "archives": {
        "BACKEND": "tests.operations.archives.Deadly",
        "OPTIONS": {"location": os.environ["TEST_ARCHIVES"]},
    },
}
