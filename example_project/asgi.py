"""The ASGI application, which serves the static files too, so that the demo needs no collectstatic."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from django_chat_sessions.asgi import with_lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# In production a web server, a CDN or WhiteNoise serves the static files.
application = with_lifespan(ASGIStaticFilesHandler(get_asgi_application()))
