"""The ASGI application of the suite."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

from django.core.asgi import get_asgi_application

from django_chat_sessions.asgi import with_lifespan

application = with_lifespan(get_asgi_application())
