"""One tree of errors. A docstring's first sentence is the default message; what a caller needs to know is an attribute.

The API maps each class to one status and code (``django_chat_sessions.api.errors``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ChatSessionError(Exception):
    """The chat session operation failed."""

    def __init__(self, message: str = "", /, **data: Any) -> None:
        """Take the message, by default the docstring's first line, and the data as attributes."""
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.data: dict[str, Any] = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process, a Celery worker's parent say, have the error whole."""
        return _again, (type(self), str(self), self.data)

    def __getattr__(self, name: str) -> Any:
        """Give what the raiser attached."""
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


def _again(kind: type[ChatSessionError], message: str, data: dict[str, Any]) -> ChatSessionError:
    error = kind.__new__(kind)
    ChatSessionError.__init__(error, message, **data)
    return error


class InvalidRequest(ChatSessionError):
    """The request is not valid.

    Attributes: ``errors``, field name to list of messages.
    """

    def __init__(self, errors: Mapping[str, Sequence[str]] | None = None, message: str = "") -> None:
        """Take the messages by field."""
        super().__init__(message, errors={name: list(texts) for name, texts in (errors or {}).items()})


class InvalidTimeout(ChatSessionError):
    """The timeout is out of bounds.

    Attributes: ``field``, ``min_minutes``, ``max_minutes``.
    """


class MessageTooLong(ChatSessionError):
    """The message is longer than the settings allow.

    Attributes: ``limit``, characters.
    """


class MetadataTooLarge(ChatSessionError):
    """The JSON is larger than the settings allow.

    Attributes: ``field``, ``limit`` in bytes.
    """


class NotFound(ChatSessionError):
    """There is no such thing."""


class SessionNotFound(NotFound):
    """There is no such session."""


class MessageNotFound(NotFound):
    """There is no such message."""


class RunNotFound(NotFound):
    """There is no such run."""


class AgentNotFound(NotFound):
    """No agent of that name is registered."""


class ArchiveNotFound(NotFound):
    """There is no stored archive of the session."""


class PermissionRefused(ChatSessionError):
    """You do not have permission to perform this action."""


class IllegalTransition(ChatSessionError):
    """The session cannot go from its status to that one.

    Attributes: ``status``, ``target``.
    """


class SessionNotLive(ChatSessionError):
    """The session is over."""


class SessionEnded(SessionNotLive):
    """The session was ended; it can still be read.

    Attributes: ``status``.
    """


class SessionExpired(SessionNotLive):
    """The session expired; it can still be read.

    Attributes: ``expires_at``.
    """


class ClientConflict(ChatSessionError):
    """Another client holds the session."""


class MessageLimitReached(ChatSessionError):
    """The session is as long as the settings allow.

    Attributes: ``limit``, messages.
    """


class SessionLimitReached(ChatSessionError):
    """You have as many live sessions as the settings allow.

    Attributes: ``limit``.
    """


class ExternalIdConflict(ChatSessionError):
    """This external_id was used before with another payload."""


class RunInProgress(ChatSessionError):
    """The agent is still answering.

    Attributes: ``run``, the run's public id.
    """


class LegalHold(ChatSessionError):
    """The session, or one below it, is under legal hold."""


class SequenceConflict(ChatSessionError):
    """The session has moved on since it was read.

    Attributes: ``last_sequence``.
    """


class RenewalLimitReached(ChatSessionError):
    """The session already stands at its maximum duration.

    Attributes: ``max_duration_minutes``.
    """


class AgentUnavailable(ChatSessionError):
    """The agent cannot answer now."""


class AgentFailed(ChatSessionError):
    """The agent failed to answer; the question is stored.

    Attributes: ``message``, ``run``.
    """


class ArchiveDamaged(ChatSessionError):
    """The archive of the session is not what was written."""


class ArchiveUnavailable(ChatSessionError):
    """The storage of the archive does not give it now."""


class LogIsAppendOnly(ChatSessionError):
    """Events are never changed or deleted."""
