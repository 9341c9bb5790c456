"""What staff may do to sessions: one operation each, and a line in ``LogEntry`` in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.db import router
from django.utils.translation import gettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import log
from ..choices import EndReason
from ..exceptions import (
    ChatSessionError,
    LegalHold,
    RenewalLimitReached,
    SessionEnded,
    SessionExpired,
    SessionNotFound,
)
from ..models import REASON_LENGTH, ChatSession
from ..operations import privacy, sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from django.contrib.admin import ModelAdmin
    from django.http import HttpRequest
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something that staff may do to a session.

    Attributes:
        name: in addresses.
        permission: ``change`` or ``delete``.
        label: on its button.
        question: what staff confirms.
        done: what is logged, and said of one session.
        counted: what is said of a ``number`` of sessions, where it can be done to several.
        perform: the operation, of the session and the reason.
        applies: whether it makes sense for a session at an instant.
        asks_reason: whether staff has to say why.
        removes: whether the session is gone afterwards.
    """

    name: str
    permission: str
    label: StrOrPromise
    question: StrOrPromise
    done: StrOrPromise
    perform: Callable[[ChatSession, str], object]
    applies: Callable[[ChatSession, datetime], bool]
    counted: StrOrPromise = ""
    asks_reason: bool = False
    removes: bool = False

    def is_permitted(self, admin: ModelAdmin[Any], request: HttpRequest) -> bool:
        """Tell whether the user may do it."""
        if self.permission == "delete":
            return admin.has_delete_permission(request)
        return admin.has_change_permission(request)


END = Command(
    name="end",
    permission="change",
    label=_("End"),
    question=_("End this conversation? Nobody can write to it afterwards; it stays readable."),
    done=_("Ended."),
    counted=ngettext_lazy("Ended %(number)d session.", "Ended %(number)d sessions.", "number"),
    perform=lambda session, _reason: sessions.end(session, reason=EndReason.ADMIN),
    applies=ChatSession.is_live_at,
)
RENEW = Command(
    name="renew",
    permission="change",
    label=_("Renew"),
    question=_("Renew this session? Its idle timeout starts anew."),
    done=_("Renewed."),
    counted=ngettext_lazy("Renewed %(number)d session.", "Renewed %(number)d sessions.", "number"),
    perform=lambda session, _reason: sessions.renew(session),
    applies=ChatSession.is_live_at,
)
HOLD = Command(
    name="hold",
    permission="change",
    label=_("Place under legal hold"),
    question=_("Place this session under legal hold? Nothing deletes it until it is released."),
    done=_("Placed under legal hold."),
    perform=lambda session, reason: privacy.hold(session, reason=reason),
    applies=lambda session, _now: not session.is_held,
    asks_reason=True,
)
RELEASE = Command(
    name="release",
    permission="change",
    label=_("Release from legal hold"),
    question=_("Release this session from legal hold? It can be deleted again."),
    done=_("Released from legal hold."),
    perform=lambda session, reason: privacy.release(session, reason=reason),
    applies=lambda session, _now: session.is_held,
    asks_reason=True,
)
DELETE = Command(
    name="delete",
    permission="delete",
    label=_("Delete"),
    question=_("Delete this session, its conversation and all sessions under it? Nothing is left."),
    done=_("Deleted."),
    counted=ngettext_lazy("Deleted %(number)d session.", "Deleted %(number)d sessions.", "number"),
    perform=lambda session, _reason: sessions.delete(session),
    applies=lambda session, _now: not session.is_held,
    removes=True,
)

#: In the order of their buttons.
COMMANDS = (END, RENEW, HOLD, RELEASE, DELETE)

#: Refusals in the reader's language; others say what they say.
_REFUSALS: dict[type[ChatSessionError], StrOrPromise] = {
    LegalHold: _("It, or a session under it, is under legal hold."),
    RenewalLimitReached: _("It already stands at its maximum duration."),
    SessionEnded: _("It is over already."),
    SessionExpired: _("It has expired."),
    SessionNotFound: _("It is gone."),
}


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=REASON_LENGTH,
        widget=forms.TextInput(attrs={"class": "vTextField", "autofocus": True}),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command: the sessions that it was done to, and the others with why not."""

    done: tuple[ChatSession, ...]
    refused: tuple[tuple[ChatSession, str], ...]


def carry_out(
    command: Command,
    chosen: Iterable[ChatSession],
    *,
    admin: ModelAdmin[Any],
    request: HttpRequest,
    reason: str = "",
) -> Outcome:
    """Do something to each session, in a transaction of its own; a refusal leaves the others alone."""
    done: list[ChatSession] = []
    refused: list[tuple[ChatSession, str]] = []
    for session in chosen:
        try:
            _carry_out(command, session, admin, request, reason)
        except ChatSessionError as error:
            refused.append((session, refusal(error)))
        else:
            done.append(session)
    return Outcome(tuple(done), tuple(refused))


def _carry_out(
    command: Command, session: ChatSession, admin: ModelAdmin[Any], request: HttpRequest, reason: str
) -> None:
    with log.begin(router.db_for_write(ChatSession)):
        command.perform(session, reason)
        if command.removes:
            admin.log_deletions(request, [session])  # type: ignore[arg-type]
        else:
            said = gettext("%(done)s Reason: %(reason)s") if reason else "%(done)s"
            admin.log_change(request, session, said % {"done": command.done, "reason": reason})


def refusal(error: ChatSessionError) -> str:
    """Return in words why something was refused."""
    return str(_REFUSALS.get(type(error), error))


def to_write(keys: Iterable[Any]) -> list[ChatSession]:
    """Return sessions from the database that they are written to, the later ones first: children before parents."""
    rows = ChatSession.objects.using(router.db_for_write(ChatSession)).filter(pk__in=list(keys))
    return list(rows.defer("state", "metadata", "environment", "tags").order_by("-pk"))
