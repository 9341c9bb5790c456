"""Settings of a process beside the test's own: the suite's, with a replica."""

import os

import dj_database_url

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, MIDDLEWARE

DATABASES["replica"] = {**DATABASES["default"], **dj_database_url.parse(os.environ["REPLICA_URL"])}
DATABASE_ROUTERS = ["django_chat_sessions.routers.ReplicaRouter"]
MIDDLEWARE = ["django_chat_sessions.routers.ReplicaMiddleware", *MIDDLEWARE]
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": os.environ["NOTES"]}
}
