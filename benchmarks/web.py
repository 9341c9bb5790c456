"""Over HTTP: the API with authentication, isolation and validation, against a bare view, on the same server."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from . import data, servers
from .measure import Call, Plan, Row, alternate, compare
from .servers import Server

POST_AIM, GET_AIM = 1.6, 1.8

#: The servers: of ASGI as the example project has it, and Django's own threaded one of WSGI.
SERVERS = ("ASGI (uvicorn)", "WSGI (Django's)")


class Client:
    """One persistent connection that sends what was prepared and reads what comes; it costs next to nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes, status: int) -> bytes:
        """Send a request and return the body of the answer, which has to have that status."""
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._more()
        if int(head.split(b" ", 2)[1]) != status:
            raise SystemExit(f"{head.decode()}\n\n{body.decode()}")
        return body

    def _more(self) -> bytes:
        found = self.socket.recv(65536)
        if not found:
            raise SystemExit("The server hung up.")
        return found


def request(method: str, path: str, *, token: str | None = None, body: dict[str, Any] | None = None) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json", "User-Agent: benchmark"]
    if token:
        lines.append(f"Authorization: Token {token}")
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def measure(plan: Plan) -> Iterator[Row]:
    """Measure both routes on both servers."""
    from rest_framework.authtoken.models import Token

    owner = data.user("caller")
    token = Token.objects.get_or_create(user=owner)[0].key
    for kind in SERVERS:
        with server(kind) as served:
            caller = Caller(Client(served.port), owner, token)
            for variant, prefix, post_aim, get_aim in (
                (kind, "/api/chat/sessions", POST_AIM, GET_AIM),
                (f"{kind}, token authentication alone", "/token", None, None),
            ):
                yield compare("POST a message", variant, *caller.post(plan, prefix), post_aim)
                yield compare("GET the last 50", variant, *caller.get(plan, prefix), get_aim)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a token."""

    client: Client
    owner: Any
    token: str

    def post(self, plan: Plan, prefix: str) -> tuple[list[float], list[float]]:
        """Store messages, in new sessions each round, and return the rounds of a route and of the bare view."""
        rounds: tuple[list[float], list[float]] = ([], [])
        said = {"content": data.TEXT}
        for _ in range(plan.rounds):
            a, b = data.opened(self.owner, 2)
            mine = request("POST", f"{prefix}/{a.uuid}/messages", token=self.token, body={**said, "delivery": "store"})
            bare = request("POST", f"/bare/{b.uuid}/messages", body=said)
            pair = alternate(self._asking(mine, 201), self._asking(bare, 201), rounds=1, calls=plan.calls(100))
            for which in (0, 1):
                rounds[which].extend(pair[which])
        return rounds

    def get(self, plan: Plan, prefix: str) -> tuple[list[float], list[float]]:
        """Read the last 50 of 1 000."""
        session = data.long(self.owner, 1_000)
        data.settle()
        mine = request("GET", f"{prefix}/{session.uuid}/messages", token=self.token)
        bare = request("GET", f"/bare/{session.uuid}/messages")
        assert self.client.ask(mine, 200) == self.client.ask(bare, 200), "not the same bytes"
        calls = plan.calls(200)
        return alternate(self._asking(mine, 200), self._asking(bare, 200), rounds=plan.rounds, calls=calls)

    def _asking(self, prepared: bytes, status: int) -> Call:
        return lambda: self.client.ask(prepared, status)


def server(kind: str) -> AbstractContextManager[Server]:
    """Have a server of that kind run, in a process of its own."""
    if kind == SERVERS[0]:
        return servers.uvicorn("serve:asgi", lifespan="off")
    return servers.running([sys.executable, "-m", "benchmarks.serve", "{port}"])
