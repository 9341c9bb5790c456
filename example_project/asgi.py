"""The ASGI application, which serves the static files too, so that the demo needs no collectstatic."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

# In production a web server, a CDN or WhiteNoise does this.
application = ASGIStaticFilesHandler(get_asgi_application())
