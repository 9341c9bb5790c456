"""Settings of the benchmarks: the recommended ones, and nothing that a host would add."""

import os
from typing import Any

import dj_database_url

SECRET_KEY = "of the benchmarks"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.urls"
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]  # answers with their length

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "rest_framework.authtoken",
    "django_chat_sessions",
    "benchmarks",
]

PREPARED = {"server_side_binding": True, "prepare_threshold": 1}
POOL = {"pool": {"min_size": 2, "max_size": 20, "max_idle": float(os.environ.get("BENCH_MAX_IDLE", "600"))}}


def database(max_age: int | None = None, **options: Any) -> dict[str, Any]:
    """Return the database with these options."""
    parsed: dict[str, Any] = {**dj_database_url.parse(os.environ["BENCH_DATABASE_URL"])}
    if os.environ.get("BENCH_NAME"):
        options["application_name"] = os.environ["BENCH_NAME"]
    return parsed | {"CONN_MAX_AGE": max_age, "OPTIONS": {**parsed.get("OPTIONS", {}), **options}}


DATABASES = {
    # Under ASGI each request has a thread of its own, for which a persistent connection is of no use.
    "default": database(0, **PREPARED, **POOL) if os.environ.get("BENCH_POOL") else database(**PREPARED),
    # What is worth what: the same database in other ways.
    "reconnecting": database(0, **PREPARED),
    "pool": database(0, **PREPARED, **POOL),
    "binding": database(server_side_binding=True),
    "plain": database(),
    "asynchronous": database(**PREPARED, options="-c synchronous_commit=off"),
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}
LOGGING_CONFIG = None

CHAT_SESSIONS = {
    "RUNNER": "server",
    "LISTENER": os.environ.get("BENCH_LISTENER", "postgres"),
    "REDIS_URL": os.environ.get("REDIS_URL"),
}
