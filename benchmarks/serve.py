"""The servers of the HTTP rows: an ASGI application for uvicorn, and Django's threaded WSGI server without its log."""

from __future__ import annotations

import sys
from typing import Any

from django.core.asgi import get_asgi_application


def asgi_application() -> Any:
    """Return the application, which drains its process when it is told to stop."""
    application = get_asgi_application()
    from django_chat_sessions.asgi import with_lifespan

    return with_lifespan(application)


def main(port: int) -> None:
    """Serve WSGI, a thread for each connection, connections persistent."""
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application

    class Quiet(WSGIRequestHandler):
        # It writes the head and the body each by itself, so that the client's delayed ACK would be what is measured.
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadedWSGIServer(("127.0.0.1", port), Quiet, ipv6=False)
    server.set_app(get_wsgi_application())
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
else:
    asgi = asgi_application()
