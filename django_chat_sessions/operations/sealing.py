"""Transcripts that are sealed: conversations that nobody stores, kept by the client, who can't forge them.

They are signed, not encrypted: whoever has one can read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings as django_settings
from django.core import signing
from django.utils import timezone

from .. import conf
from ..agents import Message
from ..exceptions import InvalidRequest
from ..log import iso

#: What sets these signatures apart from all others that are made with the project's key.
SALT = "django_chat_sessions.transcript"

#: Of what is signed; another release may say it in other words.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation that nobody stored.

    Attributes:
        agent: the name of who answered.
        messages: oldest first.
        state: what the agent worked with.
    """

    agent: str
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


def seal(transcript: Transcript, owner: Any) -> str | None:
    """Return a transcript as text that its owner, and nobody else, can bring back.

    Args:
        transcript: of JSON throughout.
        owner: the user; None is nobody.

    Returns:
        None where it is more than a session may hold, or than a request may bring back.
    """
    limit = conf.get().MAX_MESSAGES
    if limit is not None and len(transcript.messages) > limit:
        return None
    said = {
        "version": VERSION,
        "owner": _key(owner),
        "agent": transcript.agent,
        "state": transcript.state,
        "messages": [_packed(message) for message in transcript.messages],
    }
    # A lone surrogate, which JSON may say and UTF-8 may not, comes back as it is.
    data = json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="surrogatepass")
    if not _is_returnable(len(data)):
        return None
    return signing.dumps(data, salt=SALT, serializer=_Bytes, compress=True)


def unseal(text: str, owner: Any, *, agent: str | None = None) -> Transcript:
    """Return the transcript that was sealed for an owner, as often as they bring it.

    Args:
        text: what ``seal`` returned.
        owner: who brings it.
        agent: the agent that it has to be of; None is any.

    Raises:
        InvalidRequest: it is forged, somebody else's, of another agent, or older than the setting
            ``TRANSCRIPT_SECONDS``.
    """
    try:
        data = signing.loads(text, salt=SALT, serializer=_Bytes, max_age=conf.get().TRANSCRIPT_SECONDS)
        said = json.loads(data.decode(errors="surrogatepass"))
    except signing.SignatureExpired as error:
        raise _refused("This transcript has expired.") from error
    except (signing.BadSignature, ValueError) as error:
        raise _refused(_FORGED) from error
    if said.get("version") != VERSION or said["owner"] != _key(owner):
        raise _refused(_FORGED)
    if agent is not None and said["agent"] != agent:
        raise _refused("This transcript is of another agent.")
    return Transcript(said["agent"], tuple(map(_unpacked, said["messages"])), said["state"])


#: Somebody else's is nothing but forged: nobody learns what it says, not even that it is good.
_FORGED = "This is no transcript that you were given."


def _refused(text: str) -> InvalidRequest:
    return InvalidRequest({"transcript": [text]})


def _key(owner: Any) -> str | None:
    return None if owner is None else str(owner.pk)


def _is_returnable(size: int) -> bool:
    """Tell whether so many bytes, a third more in base64, leave room for a question in a request.

    They are counted before they are compressed: what a small request unfolds to in memory is bounded as well.
    """
    limit: int | None = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return limit is None or size <= limit // 2


def _packed(message: Message) -> dict[str, Any]:
    said = {
        "role": str(message.role),
        "content": message.content,
        "parts": list(message.parts),
        "metadata": dict(message.metadata),
        "token_count": message.token_count,
        "created_at": message.created_at and iso(message.created_at),
    }
    return {name: value for name, value in said.items() if value or value == 0}


def _unpacked(said: Mapping[str, Any]) -> Message:
    return Message(
        role=said["role"],
        content=said.get("content", ""),
        parts=tuple(said.get("parts", ())),
        metadata=said.get("metadata", {}),
        token_count=said.get("token_count"),
        created_at=_instant(said.get("created_at")),
    )


def _instant(text: str | None) -> datetime | None:
    """Return an instant; none that is still to come by the clock of this server, where another's sealed it."""
    instant = None if text is None else datetime.fromisoformat(text)
    return None if instant is None or instant > timezone.now() else instant


class _Bytes:
    """Lets Django's signing take bytes as they are."""

    def dumps(self, data: bytes) -> bytes:
        """Return what is signed."""
        return data

    def loads(self, data: bytes) -> bytes:
        """Return what was signed."""
        return data
