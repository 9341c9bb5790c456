"""The vocabulary: every closed list of words that is stored or sent."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """Where a session stands in its life."""

    CREATED = "created", _("created")
    ACTIVE = "active", _("active")
    RESUMED = "resumed", _("resumed")
    EXPIRED = "expired", _("expired")
    ENDED = "ended", _("ended")
    FAILED = "failed", _("failed")
    ARCHIVED = "archived", _("archived")


#: Statuses in which a session takes messages, unless its deadline has passed.
LIVE = (Status.CREATED, Status.ACTIVE, Status.RESUMED)


class EventType(TextChoices):
    """What an event of the log records; applications add their own under ``app.``."""

    SESSION_CREATED = "session.created", _("session created")
    SESSION_CHANGED = "session.changed", _("session changed")
    SESSION_RESUMED = "session.resumed", _("session resumed")
    SESSION_RENEWED = "session.renewed", _("session renewed")
    SESSION_TIMEOUT_CHANGED = "session.timeout_changed", _("timeout changed")
    SESSION_EXPIRING = "session.expiring", _("session expiring")
    SESSION_EXPIRED = "session.expired", _("session expired")
    SESSION_ENDED = "session.ended", _("session ended")
    SESSION_FAILED = "session.failed", _("session failed")
    SESSION_SUPERSEDED = "session.superseded", _("another client took control")
    SESSION_FORKED = "session.forked", _("forked from another session")
    SESSION_CLAIMED = "session.claimed", _("session claimed by a user")
    SESSION_HELD = "session.held", _("placed under legal hold")
    SESSION_RELEASED = "session.released", _("released from legal hold")
    SESSION_ARCHIVED = "session.archived", _("session archived")
    SESSION_RESTORED = "session.restored", _("session restored")
    STATE_CHANGED = "state.changed", _("state changed")
    CONTENT_ERASED = "content.erased", _("content erased")
    CONTEXT_COMPACTED = "context.compacted", _("context compacted")
    MESSAGE = "message", _("message")
    MESSAGE_EDITED = "message.edited", _("message edited")
    MESSAGE_DELETED = "message.deleted", _("message withdrawn")
    RUN_STARTED = "run.started", _("answer started")
    RUN_SUCCEEDED = "run.succeeded", _("answer finished")
    RUN_FAILED = "run.failed", _("answer failed")
    RUN_CANCELLED = "run.cancelled", _("answer cancelled")


#: Events that carry a message of the conversation.
MESSAGE_TYPES = (EventType.MESSAGE, EventType.MESSAGE_EDITED)

#: The prefix of the application's own event types.
APP_PREFIX = "app."


class Role(TextChoices):
    """Who speaks."""

    USER = "user", _("user")
    ASSISTANT = "assistant", _("assistant")
    SYSTEM = "system", _("system")
    TOOL = "tool", _("tool")


class TimeoutMode(TextChoices):
    """A named set of timeouts."""

    AGGRESSIVE = "aggressive", _("aggressive")
    STANDARD = "standard", _("standard")
    LENIENT = "lenient", _("lenient")
    PERSISTENT = "persistent", _("persistent")


class Strategy(TextChoices):
    """What several tabs of one user share."""

    MULTIPLE = "multiple", _("every opening is a new session")
    SINGLE = "single", _("one session for all tabs")
    PER_TAB = "per_tab", _("one session a tab")
    ACTIVE_TAB_WINS = "active_tab_wins", _("one session, the newest tab controls it")


class EndReason(TextChoices):
    """Reasons that the library itself writes; people may give any text."""

    IDLE_TIMEOUT = "idle_timeout", _("idle for longer than its timeout")
    MAX_DURATION = "max_duration", _("reached its maximum duration")
    PARENT_ENDED = "parent_ended", _("its parent ended")
    ADMIN = "ended_by_staff", _("ended by staff")


class Cleanup(TextChoices):
    """When what is over is archived or deleted."""

    DEFERRED = "deferred", _("by sweeps, after its retention")
    IMMEDIATE = "immediate", _("by the sweep that records the expiry")
    LAZY = "lazy", _("on the next access after its retention")


class RetentionAction(TextChoices):
    """What becomes of a session whose retention is over."""

    ARCHIVE = "archive", _("its content is removed")
    DELETE = "delete", _("it is deleted")


class RunStatus(TextChoices):
    """Where one answer of an agent stands."""

    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


#: Statuses of a run that still owes an answer; at most one such run a session.
ALIVE = (RunStatus.QUEUED, RunStatus.RUNNING)


class Delivery(TextChoices):
    """How the answer to a message is delivered."""

    STORE = "store", _("store only")
    WAIT = "wait", _("answer when the agent has")
    STREAM = "stream", _("answer as the agent speaks")
    BACKGROUND = "background", _("answer at once that the agent will")
