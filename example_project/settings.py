"""Settings of the example, from the environment. What is not given is embedded: SQLite, and a broker of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django_chat_sessions.schedule import beat_schedule

from . import environment as env
from . import logs

BASE_DIR = Path(__file__).resolve().parent.parent

#: Databases, logs and the embedded broker's messages.
VAR_DIR = Path(env.text("DEMO_VAR_DIR", str(BASE_DIR / "var")))
VAR_DIR.mkdir(parents=True, exist_ok=True)

# ------------------------------------------------------------------------------------------------------------- Django

DEBUG = env.flag("DJANGO_DEBUG", default=False)
SECRET_KEY = env.text("DJANGO_SECRET_KEY", "of-the-example-only-and-known-to-everybody-so-choose-your-own")
ALLOWED_HOSTS = env.words("DJANGO_ALLOWED_HOSTS", "localhost,.localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("DJANGO_CSRF_TRUSTED_ORIGINS")

ROOT_URLCONF = "example_project.urls"
ASGI_APPLICATION = "example_project.asgi.application"
WSGI_APPLICATION = "example_project.wsgi.application"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    *env.installed("drf_spectacular", "drf_spectacular_sidecar", "django_celery_beat"),
    "django_chat_sessions",
    "example_project.assistants",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_chat_sessions.middleware.ChatSessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": env.database(
        env.text("DATABASE_URL", f"sqlite:///{VAR_DIR / 'db.sqlite3'}"),
        pool_size=env.number("DATABASE_POOL_SIZE", 20),
    ),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
LOGOUT_REDIRECT_URL = "login"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {"news": {"()": "django.utils.log.CallbackFilter", "callback": logs.is_news}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["news"]}},
    "root": {"handlers": ["console"], "level": env.text("DJANGO_LOG_LEVEL", "INFO")},
}

# ------------------------------------------------------------------------------------------------------ chat sessions

CHAT_SESSIONS: dict[str, Any] = {
    "DEFAULT_AGENT": "tasks",
    # A server alone gives its answers itself. `make demo` has a Celery worker, which says “celery”.
    "RUNNER": env.text("DEMO_RUNNER", "server"),
    # Whoever presses Ctrl-C wants the demo to stop soon; in production 20 is a good number.
    "GRACE_SECONDS": 5,
    **env.session_settings(),
}

# ---------------------------------------------------------------------------------------------- Django REST framework

REST_FRAMEWORK: dict[str, Any] = {
    # The first one decides how nobody in particular is answered: 401 by a token, 403 by Django's session.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_THROTTLE_CLASSES": (
        [
            "rest_framework.throttling.AnonRateThrottle",
            "rest_framework.throttling.UserRateThrottle",
        ]
        if env.flag("DEMO_THROTTLING", default=True)
        else []
    ),
    "DEFAULT_THROTTLE_RATES": {"anon": "60/min", "user": "600/min"},
}
if "drf_spectacular" in INSTALLED_APPS:
    REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"] = "drf_spectacular.openapi.AutoSchema"

SPECTACULAR_SETTINGS = {
    "TITLE": "Chat sessions",
    "DESCRIPTION": "The example project of django-chat-sessions.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    # From the server itself, as nothing here needs the network.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# ------------------------------------------------------------------------------------------------------------- Celery

CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", "filesystem://localhost")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = TIME_ZONE
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

if CELERY_BROKER_URL.startswith("filesystem://"):
    BROKER_DIR = Path(env.text("DEMO_BROKER_DIR", str(VAR_DIR / "broker")))
    for name in ("messages", "control"):
        (BROKER_DIR / name).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT = "example_project.broker:Transport"
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(BROKER_DIR / "messages"),
        "data_folder_out": str(BROKER_DIR / "messages"),
        "control_folder": str(BROKER_DIR / "control"),
        # An answer that a worker gives begins that much later at the most.
        "polling_interval": 0.1,
    }
    # Each remote command and heartbeat would be a file.
    CELERY_WORKER_ENABLE_REMOTE_CONTROL = False

# Everything is swept while one watches; in production once a minute does, and at night for archiving and purging.
SWEEP_SECONDS = env.number("DEMO_SWEEP_SECONDS", 5)

if "django_celery_beat" in INSTALLED_APPS:
    CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
else:
    CELERY_BEAT_SCHEDULE = beat_schedule(seconds=SWEEP_SECONDS, crontab=None)
