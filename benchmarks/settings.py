"""Settings of the benchmarks: the recommended ones, and nothing that a host would add."""

import os

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
]

DATABASES = {"default": dj_database_url.parse(os.environ["BENCH_DATABASE_URL"])}
DATABASES["default"] |= {"CONN_MAX_AGE": None}
if not os.environ.get("BENCH_SETUP"):  # migrations hold several statements in one string
    DATABASES["default"]["OPTIONS"] = {
        **DATABASES["default"].get("OPTIONS", {}),
        "server_side_binding": True,
        "prepare_threshold": 0,
    }
if os.environ.get("BENCH_POOL"):  # under ASGI each request has a thread of its own
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 2, "max_size": 8}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"],
}
LOGGING_CONFIG = None
