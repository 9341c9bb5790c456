"""What there is to know of a session besides its conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.urls import reverse
from django.utils.translation import gettext as _

from .. import agents, conf
from ..choices import Cleanup, RetentionAction
from ..models import ChatSession, Run
from ..operations import retention, writing
from ..rules.timeouts import BUILT_IN, MODES, TimeoutOverrides
from . import display

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

#: Children and runs that a session's page names; there is a link to all.
NAMED = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: words, or an instant, perhaps with a link and a note."""

    label: str
    text: object = ""
    at: datetime | None = None
    href: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Facts of one kind."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One run of the session's agent, and where its question and its answer are to be read."""

    run: Run
    question: str
    reply: str
    error: str
    seconds: float | None


def groups(session: ChatSession, now: datetime) -> tuple[Group, ...]:
    """Return all facts of a session."""
    return (
        Group(_("Session"), tuple(_identity(session))),
        Group(_("Times"), tuple(_times(session, now))),
        Group(_("Timeouts in force"), tuple(_timeouts(session))),
        Group(_("Counts"), tuple(_counts(session))),
        Group(_("Family"), tuple(_family(session, now))),
    )


def session_url(session: ChatSession) -> str:
    """Return the address of a session's page."""
    return reverse("admin:chat_sessions_chatsession_change", args=[session.pk])


def list_url(**filters: object) -> str:
    """Return the address of the list of sessions, narrowed."""
    return reverse("admin:chat_sessions_chatsession_changelist", query=filters)


def _identity(session: ChatSession) -> Iterator[Fact]:
    owner = session.owner
    if owner is None:
        yield Fact(_("Owner"), _("nobody"))
    else:
        yield Fact(_("Owner"), display.visible(owner.get_username()), href=list_url(owner=owner.pk))
    known = not session.agent or session.agent in agents.registered()
    yield Fact(_("Agent"), session.agent or "-", note="" if known else _("not registered"))
    if session.application:
        yield Fact(_("Application"), session.application)
    yield Fact(_("Public id"), session.uuid)
    if session.external_id is not None:
        yield Fact(_("External id"), display.visible(session.external_id))
    yield Fact(_("Tabs"), session.get_strategy_display())
    if session.client is not None:
        yield Fact(_("Client in control"), display.visible(session.client))
    if session.tags:
        yield Fact(_("Tags"), display.visible(", ".join(map(str, session.tags))))


def _times(session: ChatSession, now: datetime) -> Iterator[Fact]:
    yield Fact(_("Created"), at=session.created_at)
    yield Fact(_("Last activity"), at=session.last_activity_at)
    yield Fact(_("Renewed"), at=session.renewed_at)
    yield Fact(_("Expires"), at=session.expires_at, note=display.time_left(session, now))
    if session.warned_at is not None:
        yield Fact(_("Warned"), at=session.warned_at)
    if session.ended_at is not None:
        yield Fact(_("Ended"), at=session.ended_at, note=display.end_reason(session.end_reason))
    yield from _fate(session, now)


def _fate(session: ChatSession, now: datetime) -> Iterator[Fact]:
    """Say what retention does to a session that is over, and when."""
    fate = retention.fate(session, now)
    if fate is None:
        return
    if session.is_held:
        yield Fact(_("Retention"), _("kept: legal hold"))
    elif fate.action is None or fate.at is None:
        yield Fact(_("Retention"), _("kept for ever"))
    else:
        label = _("Archived on") if fate.action == RetentionAction.ARCHIVE else _("Deleted on")
        due = _("with the next sweep") if fate.at <= now else ""
        yield Fact(label, at=fate.at, note=_("on the next access after that") if fate.cleanup == Cleanup.LAZY else due)


def _counts(session: ChatSession) -> Iterator[Fact]:
    yield Fact(_("Messages"), session.message_count)
    yield Fact(_("Tokens"), session.token_count)
    yield Fact(_("Events"), session.last_sequence)
    yield Fact(_("Renewals"), session.renewal_count)


def _timeouts(session: ChatSession) -> Iterator[Fact]:
    policy = session.policy
    minutes = {
        "timeout_minutes": _("Idle timeout"),
        "max_duration_minutes": _("Maximum duration"),
        "warning_threshold_minutes": _("Warning"),
    }
    yield Fact(_("Mode"), policy.mode, note=_origin(session, "mode", policy.mode))
    for name, label in minutes.items():
        value = getattr(policy, name)
        yield Fact(label, _("%(number)d min") % {"number": value}, note=_origin(session, name, value))
    renews = policy.auto_renew
    yield Fact(
        _("Renewed by activity"),
        _("yes") if renews else _("no"),
        note=_origin(session, "auto_renew", renews),
    )


def _origin(session: ChatSession, name: str, value: object) -> str:
    """Say which tier a timeout in force comes from: the nearest one that says anything of it."""
    tiers: tuple[tuple[TimeoutOverrides, str, str], ...] = (
        (session.overrides, _("from the session"), _("by the session's mode")),
        (agents.of(session.agent).timeouts, _("from its agent"), _("by its agent's mode")),
        (conf.get().timeouts, _("from the settings"), _("by the mode of the settings")),
        (BUILT_IN, _("built in"), _("built in")),
    )
    for tier, itself, by_mode in tiers:
        explicit = getattr(tier, name)
        expanded = None if tier.mode is None else getattr(MODES[tier.mode], name, None)
        said = expanded if explicit is None else explicit
        if said is not None:
            origin = by_mode if explicit is None else itself
            adjusted = _("%(origin)s, adjusted to the idle timeout") % {"origin": origin}
            return origin if said == value else adjusted
    return ""


def _family(session: ChatSession, now: datetime) -> Iterator[Fact]:
    if session.parent is not None:
        yield _relative(_("Parent"), session.parent, now)
    if session.root is not None and session.root != session.parent:
        yield _relative(_("Root"), session.root, now)
    source = session.forked_from
    if source is not None:
        at = _("at event %(sequence)s") % {"sequence": session.forked_from_sequence}
        yield Fact(_("Forked from"), name(source), href=session_url(source), note=at)
    children = ChatSession.objects.using(writing.alias(session)).filter(parent=session)
    found = list(children.defer(*HEAVY).order_by("-pk")[: NAMED + 1])
    for child in found[:NAMED]:
        yield _relative(_("Child"), child, now)
    if len(found) > NAMED:
        yield Fact("", _("all children"), href=list_url(parent=session.pk))


def _relative(label: str, session: ChatSession, now: datetime) -> Fact:
    return Fact(label, name(session), href=session_url(session), note=display.badge(session.status_at(now)))


#: Columns that may hold a quarter of a megabyte and that no list shows.
HEAVY = ("state", "metadata", "environment", "tags")


def name(session: ChatSession) -> str:
    """Return a session's title, or what it is called without one."""
    return display.summary(session.title, 80) or _("untitled")


def answers(session: ChatSession) -> tuple[Answer, ...]:
    """Return the latest answers of the session's agent."""
    runs = Run.objects.using(writing.alias(session)).filter(session=session).order_by("-pk")
    return tuple(_answer(run) for run in runs[:NAMED])


def _answer(run: Run) -> Answer:
    began, finished = run.started_at or run.created_at, run.finished_at
    seconds = None if finished is None else round((finished - began).total_seconds(), 3)
    question, reply = _place(run.input_sequence), _place(run.output_sequence)
    return Answer(run, question, reply, display.visible(run.error), seconds)


def _place(sequence: int | None) -> str:
    """Return the address, on a session's page, of the page of the conversation that begins with a message."""
    return f"?after={sequence - 1}#message-{sequence}" if sequence else ""


def data(session: ChatSession) -> tuple[tuple[str, Any], ...]:
    """Return what is stored with a session as JSON, for reading."""
    return (
        (_("State"), display.pretty(session.state)),
        (_("Metadata"), display.pretty(session.metadata)),
        (_("Environment"), display.pretty(session.environment)),
    )
