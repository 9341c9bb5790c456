"""Events are posted to the webhook, signed; here to a server of the test's own."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from django_chat_sessions import conf, dialects
from django_chat_sessions.agents import Message
from django_chat_sessions.models import OutboxEntry
from django_chat_sessions.operations import messages, outbox, webhook
from django_chat_sessions.rules import backoff
from django_chat_sessions.testing import deliver, make_session, say

pytestmark = pytest.mark.django_db

PLAIN = "a secret in plain text, with umlauts: äöü"
KEY = bytes(range(32))
ENCODED = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """The other side: what it was sent, and what it answers."""

    port: int
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            if found.answer is not None:
                found.answer(self)
                return
            self.send_response(found.status)
            for name, value in {"Content-Length": "2", **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST  # noqa: N815 - the server's name

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that failed come due while a test looks, however slow the machine."""
    monkeypatch.setattr(backoff, "SHORTEST", 30.0)


@pytest.fixture
def posted(configured: Callable[..., None], receiver: Receiver) -> Callable[..., None]:
    """Return a function that has messages posted to the receiver."""

    def posted(**keys: Any) -> None:
        address = f"http://127.0.0.1:{receiver.port}/hook"
        given = {"WEBHOOK_URL": address, "WEBHOOK_SECRET": ENCODED, "WEBHOOK_EVENTS": ["message"]}
        configured(**{**given, "WEBHOOK_TIMEOUT": 5, **keys})

    return posted


def error() -> str:
    return OutboxEntry.objects.get().error


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """As RFC 2104 defines it."""
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def is_signed(headers: dict[str, str], body: bytes, key: bytes) -> bool:
    """Verify as a receiver would (https://www.standardwebhooks.com)."""
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = "v1," + base64.b64encode(hmac_sha256(key, signed)).decode()
    return expected in headers["webhook-signature"].split(" ")


# ------------------------------------------------------------------------------------------------------- what is posted


def test_an_event_is_posted_with_its_session(session, posted, receiver, api_of, alice):
    posted()
    messages.append(session, Message("user", "ä\0\ud800", metadata={"a": [1]}))
    assert outbox.deliver().count == 1
    (event,) = api_of(alice).get(f"/api/chat/sessions/{session.uuid}/events?type=message").json()["events"]
    assert receiver.bodies == [
        {
            "type": "message",
            "timestamp": event["created_at"],
            "data": {
                "session": str(session.uuid),
                "agent": "silent",
                "application": "",
                "owner": "alice",
                "event": event,
            },
        }
    ]
    path, headers, _ = receiver.requests[0]
    assert (path, headers["content-type"]) == ("/hook", "application/json")
    assert not OutboxEntry.objects.exists()


def test_a_session_without_an_owner_is_posted_without_one(posted, receiver):
    posted()
    say(make_session(agent="silent"), "Hello")
    outbox.deliver()
    assert receiver.bodies[0]["data"]["owner"] is None


@pytest.mark.parametrize(
    ("secret", "keys"),
    [
        (PLAIN, [PLAIN.encode()]),
        (ENCODED, [KEY]),
        (ENCODED.rstrip("="), [KEY]),
        ([PLAIN, ENCODED], [PLAIN.encode(), KEY]),
        ("x" * 100, [b"x" * 100]),
    ],
)
def test_whoever_has_a_secret_can_verify_what_is_posted(session, posted, receiver, secret, keys):
    posted(WEBHOOK_SECRET=secret)
    say(session, "Hello")
    assert outbox.deliver().count == 1
    _, headers, body = receiver.requests[0]
    assert all(is_signed(headers, body, key) for key in keys)
    assert len(headers["webhook-signature"].split(" ")) == len(keys)
    assert not is_signed(headers, body, b"another")
    assert not is_signed(headers, body + b" ", keys[0])
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60


def test_the_example_of_the_specification_is_signed_as_it_says():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = webhook.signature(webhook.secrets(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert hmac_sha256(key, b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + body) == base64.b64decode(made[3:])


def test_an_attempt_is_named_as_the_one_before_and_dated_anew(session, posted, receiver, monkeypatch):
    posted()
    receiver.status = 500
    say(session, "Hello")
    deliver()
    receiver.status = 204
    later = time.time() + 100
    monkeypatch.setattr("time.time", lambda: later)
    assert deliver() == 1
    (_, first, _), (_, second, _) = receiver.requests
    assert first["webhook-id"] == second["webhook-id"] == f"{session.uuid}_2"
    assert "." not in first["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) >= 99


def test_a_login_in_the_address_is_sent_as_one(session, posted, receiver):
    posted(WEBHOOK_URL=f"http://us%40er:pa%3Ass@127.0.0.1:{receiver.port}/hook?token=x%20y&z")
    say(session, "Hello")
    assert outbox.deliver().count == 1
    path, headers, _ = receiver.requests[0]
    assert path == "/hook?token=x%20y&z"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"us@er:pa:ss"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 410, 500, 502])
def test_any_status_but_those_of_success_is_a_failure(session, posted, receiver, status):
    posted()
    receiver.status, receiver.headers = status, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert [path for path, _, _ in receiver.requests] == ["/hook"]
    assert error() == f"WebhookFailed status {status}"


@pytest.mark.parametrize(
    ("status", "retry_after", "least", "most"),
    [
        (503, "600", 600, 600),
        (429, "600", 600, 600),
        (503, "100000000", 3600, 3600),
        (503, lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True), 590, 600),
        (503, "Fri, 31 Dec 1999 23:59:59 GMT", 0, 30),
        (503, "soon", 0, 30),
        (503, "-1", 0, 30),
        (500, "600", 0, 30),
    ],
)
def test_a_receiver_that_is_busy_may_say_until_when(session, posted, receiver, status, retry_after, least, most):
    posted()
    receiver.status = status
    receiver.headers = {"Retry-After": retry_after() if callable(retry_after) else retry_after}
    say(session, "Hello")
    before = dialects.now("default")
    outbox.deliver()
    delay = OutboxEntry.objects.get().next_attempt_at - before
    assert timedelta(seconds=least) <= delay < timedelta(seconds=most + 20)


def test_a_receiver_that_says_nothing_is_waited_for_as_long_as_the_settings_say(session, posted, receiver):
    posted(WEBHOOK_TIMEOUT=0.2)
    over = threading.Event()
    receiver.answer = lambda handler: over.wait(20)
    say(session, "Hello")
    began = time.monotonic()
    assert outbox.deliver().count == 0
    assert 0.2 <= time.monotonic() - began < 10
    over.set()
    assert error() == "WebhookFailed TimeoutError"


def test_a_receiver_that_dribbles_has_no_more_time(session, posted, receiver):
    posted(WEBHOOK_TIMEOUT=0.4)
    over = threading.Event()

    def dribble(handler: BaseHTTPRequestHandler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400:
            if over.wait(0.05):
                return
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return

    receiver.answer = dribble
    say(session, "Hello")
    began = time.monotonic()
    assert outbox.deliver().count == 0
    assert time.monotonic() - began < 10
    over.set()
    assert error() == "WebhookFailed TimeoutError"


def test_what_a_receiver_answers_is_not_read_to_its_end(session, posted, receiver):
    posted()
    written: list[int] = []
    over = threading.Event()

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not over.is_set():
                written.append(handler.wfile.write(b"x" * 65536))
        except OSError:
            pass

    receiver.answer = flood
    say(session, "Hello")
    assert outbox.deliver().count == 1
    over.set()
    assert sum(written) < 100_000_000


def test_a_success_counts_although_its_body_never_ends(session, posted, receiver):
    posted(WEBHOOK_TIMEOUT=0.5)
    over = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 10\r\n\r\nab")
        over.wait(20)

    receiver.answer = stall
    say(session, "Hello")
    assert outbox.deliver().count == 1
    over.set()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 999999 x\r\n\r\n", b"\0" * 70_000])
def test_an_answer_that_is_none_is_a_failure(session, posted, receiver, answer):
    posted()
    receiver.answer = lambda handler: handler.wfile.write(answer)
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert error().startswith("WebhookFailed ")


def test_nobody_there_is_a_failure(session, posted):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        posted(WEBHOOK_URL=f"http://127.0.0.1:{taken.getsockname()[1]}/")
        say(session, "Hello")
        assert outbox.deliver().count == 0
    assert error() == "WebhookFailed ConnectionRefusedError"


@pytest.mark.parametrize("address", ["https://nowhere.invalid/x", "http://[::1", "http://:80/", "http://x:99999/"])
def test_an_address_that_leads_nowhere_is_a_failure(session, posted, address):
    posted(WEBHOOK_URL=address)
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert error().startswith("WebhookFailed ")


def test_a_webhook_that_was_taken_away_is_a_failure(session, posted, configured):
    posted()
    say(session, "Hello")
    configured(WEBHOOK_URL=None)
    assert outbox.deliver().count == 0
    assert error() == "WebhookFailed not configured"


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (None, "without a secret"),
        ("", "with an empty secret"),
        ("whsec_", "with an empty secret"),
        ([ENCODED, "whsec_=="], "with an empty secret"),
        ("whsec_?", "with a secret that is no base64"),
        ("whsec_é", "with a secret that is no base64"),
        ("\ud800", "with a secret that is no text"),
    ],
)
def test_nothing_is_posted_unsigned(session, posted, receiver, secret, why):
    posted(WEBHOOK_SECRET=secret)
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert error() == f"WebhookFailed {why}"
    assert receiver.requests == []


# ------------------------------------------------------------------------------------------------------------ encrypted


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a certificate of 127.0.0.1 and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


@pytest.fixture
def secure(certificate: Path, receiver: Receiver) -> Iterator[int]:
    """Return the port of a server that speaks TLS and passes on to the receiver."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(raw, server_side=True) as client:
                    request = client.recv(65536)
                    while b"\r\n\r\n" not in request or not request.endswith(b"}"):
                        request += client.recv(65536)
                    with socket.create_connection(("127.0.0.1", receiver.port)) as other:
                        other.sendall(request)
                        client.sendall(other.recv(65536))
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_encrypted_address_is_trusted_by_its_certificate_alone(
    session, posted, receiver, secure, certificate, monkeypatch
):
    posted(WEBHOOK_URL=f"https://127.0.0.1:{secure}/hook")
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert (error(), receiver.requests) == ("WebhookFailed SSLCertVerificationError", [])
    monkeypatch.setattr(webhook, "_trust", lambda: ssl.create_default_context(cafile=str(certificate)))
    assert deliver() == 1
    assert is_signed(receiver.requests[0][1], receiver.requests[0][2], KEY)


def test_an_encrypted_address_that_does_not_encrypt_is_a_failure(session, posted, receiver):
    posted(WEBHOOK_URL=f"https://127.0.0.1:{receiver.port}/hook", WEBHOOK_TIMEOUT=1)
    say(session, "Hello")
    assert outbox.deliver().count == 0
    assert receiver.requests == []


def test_a_handshake_that_never_ends_has_no_more_time(session, posted):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        posted(WEBHOOK_URL=f"https://127.0.0.1:{silent.getsockname()[1]}/", WEBHOOK_TIMEOUT=0.2)
        say(session, "Hello")
        began = time.monotonic()
        assert outbox.deliver().count == 0
        assert time.monotonic() - began < 10
    assert error() == "WebhookFailed TimeoutError"


# -------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("status", [200, 500])
def test_secrets_are_neither_logged_nor_shown(session, posted, receiver, admin_client, caplog, status):
    caplog.set_level(logging.DEBUG)
    hidden = ["hidden-password", "hidden-user", "hidden-token", "hidden answer", ENCODED, ENCODED[6:]]
    posted(
        WEBHOOK_URL=f"http://hidden-user:hidden-password@127.0.0.1:{receiver.port}/hook?token=hidden-token",
        DELIVERY_ATTEMPTS=1,
    )
    receiver.status, receiver.headers = status, {"X": "hidden answer"}
    say(session, "Hello")
    outbox.deliver()
    pages = [admin_client.get("/admin/chat_sessions/outboxentry/").content.decode()]
    pages += [
        admin_client.get(f"/admin/chat_sessions/outboxentry/{entry.pk}/change/").content.decode()
        for entry in OutboxEntry.objects.all()
    ]
    checks = " ".join(f"{found} {found.hint}" for found in run_checks(tags=["chat_sessions"]))
    logged = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "chat_sessions" in logged
    for text in (logged, repr(conf.get()), checks, *pages, *OutboxEntry.objects.values_list("error", flat=True)):
        assert [secret for secret in hidden if secret in text] == []
