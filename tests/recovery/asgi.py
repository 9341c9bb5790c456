"""The ASGI application of a host with Celery."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.celery.host")

import tests.celery.host_app
from tests.streams.asgi import application

__all__ = ["application", "tests"]
