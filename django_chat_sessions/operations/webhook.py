"""The built-in subscriber: posts events to ``WEBHOOK_URL``, signed (https://www.standardwebhooks.com, version 1.0.0).

What fails is told by its kind alone: neither the address nor a secret nor what the other side says is kept or logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import SplitResult, unquote, urlsplit

from .. import conf
from ..log import iso
from ..notices import Notice

#: The mark of a secret that is given as base64.
PREFIX = "whsec_"

#: Bytes of a key, below which it can be guessed from what it signs.
KEY_BYTES = 16

#: Bytes of an answer that are read, and forgotten.
ANSWER_BYTES = 4096

#: Answers in which the other side may say when it wants to be asked again.
_BUSY = (429, 503)


class WebhookFailed(Exception):
    """The webhook did not take an event; the words are fit for anybody's eyes.

    Attributes:
        retry_after: seconds that the other side wants to be left alone for.
    """

    def __init__(self, why: str, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


def post(notice: Notice) -> None:
    """Post an event to the webhook.

    Raises:
        WebhookFailed: it was not taken: there is no webhook, nobody answered within ``WEBHOOK_TIMEOUT``, or not with
            a status from 200 to 299.
    """
    settings = conf.get()
    if not settings.WEBHOOK_URL:
        raise WebhookFailed("not configured")
    content = body(notice)
    # Neither has a full stop, which separates what is signed.
    name, at = f"{notice.session.uuid}_{notice.sequence}", str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "django-chat-sessions",
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": signature(secrets(settings.WEBHOOK_SECRET), name, at, content),
    }
    url = parsed(settings.WEBHOOK_URL)
    status, retry_after = _exchange(url, content, {**headers, **_login(url)}, settings.WEBHOOK_TIMEOUT)
    if not 200 <= status < 300:
        raise WebhookFailed(f"status {status}", _seconds(retry_after) if status in _BUSY else None)


def body(notice: Notice) -> bytes:
    """Return what is posted."""
    session, at = notice.session, iso(notice.created_at)
    event = {"sequence": notice.sequence, "type": notice.type, "created_at": at, "data": notice.data}
    data = {
        "session": str(session.uuid),
        "agent": session.agent,
        "application": session.application,
        "owner": session.owner.get_username() if session.owner else None,
        "event": event,
    }
    return json.dumps({"type": notice.type, "timestamp": at, "data": data}, separators=(",", ":")).encode()


def parsed(address: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        WebhookFailed: it is none.
    """
    try:
        url = urlsplit(address)
        if url.hostname and url.port != 0:
            return url
    except ValueError:
        pass
    raise WebhookFailed("with an address that is none")


def secrets(given: str | Sequence[str] | None) -> list[bytes]:
    """Return the keys of one secret or several.

    Raises:
        WebhookFailed: there is none, or one that is empty, no text, or no base64 behind its mark.
    """
    several = [given] if isinstance(given, str) else list(given or ())
    if not several:
        raise WebhookFailed("without a secret")
    try:
        keys = [_key(secret) for secret in several]
    except UnicodeError:
        raise WebhookFailed("with a secret that is no text") from None
    except ValueError:
        raise WebhookFailed("with a secret that is no base64") from None
    if not all(keys):
        raise WebhookFailed("with an empty secret")
    return keys


def _key(secret: str) -> bytes:
    if not secret.startswith(PREFIX):
        return secret.encode()
    encoded = secret.removeprefix(PREFIX).rstrip("=")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def signature(keys: Sequence[bytes], name: str, at: str, content: bytes) -> str:
    """Return the signatures of a message by each key, as its header has them."""
    signed = f"{name}.{at}.".encode() + content
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _login(url: SplitResult) -> dict[str, str]:
    if url.username is None:
        return {}
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _seconds(retry_after: str | None) -> float | None:
    """Return how long a ``Retry-After`` asks for (RFC 9110, section 10.2.3: seconds, or a date)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _exchange(url: SplitResult, content: bytes, headers: Mapping[str, str], seconds: float) -> tuple[int, str | None]:
    """Post and return the status, and when to come back; redirects are an answer like any other.

    Raises:
        WebhookFailed: there was no answer in time.
    """
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        with _Connection(url, seconds) as connection:
            connection.request("POST", target, content, headers)
            answer = connection.getresponse()
            with suppress(Exception):
                answer.read1(ANSWER_BYTES)
            return answer.status, answer.headers.get("Retry-After")
    except (OSError, http.client.HTTPException, ValueError) as error:
        # None of their words: they may quote the address.
        raise WebhookFailed(type(error).__name__) from None


class _Connection(http.client.HTTPConnection):
    """A connection that is over at its time, however slowly the other side speaks; a socket's own timeout is a pause's.

    Entered, the time begins.
    """

    def __init__(self, url: SplitResult, seconds: float) -> None:
        self._is_secure = url.scheme == "https"
        if self._is_secure:
            self.default_port = http.client.HTTPS_PORT
        super().__init__(url.hostname or "", url.port, timeout=seconds)
        self._seconds = seconds

    def __enter__(self) -> _Connection:
        self._until = time.monotonic() + self._seconds
        self._is_late = False
        self._timer = threading.Timer(self._seconds, self._give_up)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._timer.cancel()
        self.close()
        if self._is_late and error is not None:
            raise TimeoutError from None

    def _give_up(self) -> None:
        self._is_late = True
        if self.sock is not None:
            with suppress(OSError):
                # Not TLS's own, which is not made to be called from another thread.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def connect(self) -> None:
        """Connect to the first address that answers, in what is left of the time."""
        failure = OSError("There is no address.")
        for family, kind, protocol, _name, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            self.sock = socket.socket(family, kind, protocol)
            try:
                self.sock.settimeout(self._left())
                self.sock.connect(address)
            except OSError as error:
                failure = error
                self.sock.close()
            else:
                break
        else:
            raise failure
        if self._is_secure:
            self.sock = _trust().wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.settimeout(self._left())
            self.sock.do_handshake()

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
