"""A whole session as a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from .. import transcripts
from ..choices import Role
from ..log import iso
from ..models import ChatSession
from ..operations import messages
from .formats import dumps, encode
from .representation import session_object

FORMAT_VERSION = 1

#: Messages that the database makes into JSON at once.
BATCH = 200


def as_json(session: ChatSession, now: datetime) -> tuple[bytes, str]:
    """Return the session, its conversation and its log as one JSON object."""
    head = dumps({"format_version": FORMAT_VERSION, "exported_at": iso(now), "session": session_object(session, now)})
    parts = [encode(f'{head[:-1]}, "messages": [')]
    parts += _separated(_conversation(session))
    parts += [b'], "events": [', *_separated(transcripts.log_lines(session)), b"]}"]
    return b"".join(parts), "application/json"


def _conversation(session: ChatSession) -> Iterator[str]:
    """Yield the conversation's messages, some at a time, as the inside of a JSON array."""
    after: int | None = 0
    while after is not None:
        page = transcripts.messages(session, after=after, limit=BATCH)
        if page.after is not None:
            yield page.json[1:-1]
        after = page.after if page.has_more else None


def _separated(texts: Iterable[str]) -> Iterator[bytes]:
    for number, text in enumerate(texts):
        yield encode(f", {text}" if number else text)


def as_lines(session: ChatSession, now: datetime) -> tuple[bytes, str]:
    """Return the log, one event a line."""
    lines = (encode(f"{line}\n") for line in transcripts.log_lines(session))
    return b"".join(lines), "application/x-ndjson"


def as_markdown(session: ChatSession, now: datetime) -> tuple[bytes, str]:
    """Return the conversation as text for people; what UTF-8 can't say is replaced."""
    title = " ".join(session.title.split()) or "Conversation"
    lines = [f"# {title}", "", f"{iso(session.created_at)} · {session.status_at(now)} · {session.uuid}", ""]
    for message in messages.everything(session):
        instant = message.created_at and iso(message.created_at)
        edited = " · edited" if message.edited_at else ""
        lines += [f"## {Role(message.role).label} · {instant}{edited}", "", message.content, ""]
        lines += [f"- [{part.get('name') or part['url']}]({part['url']})" for part in message.parts if "url" in part]
    return "\n".join(lines).encode("utf-8", errors="replace"), "text/markdown; charset=utf-8"


FORMATS: dict[str, Callable[[ChatSession, datetime], tuple[bytes, str]]] = {
    "json": as_json,
    "jsonl": as_lines,
    "markdown": as_markdown,
}

ENDINGS = {"json": "json", "jsonl": "jsonl", "markdown": "md"}
