"""The admin for support staff: read, search and end conversations. Nothing in it edits a record.

Permissions are Django's own: ``view_chatsession`` reads transcripts, ``change_chatsession`` ends, renews and holds,
``delete_chatsession`` deletes. What staff does to a session is written to Django's ``LogEntry`` in the transaction
that does it.
"""

from .archives import ArchiveAdmin
from .logs import RunAdmin, SessionEventAdmin
from .outbox import OutboxEntryAdmin
from .sessions import ChatSessionAdmin

__all__ = ["ArchiveAdmin", "ChatSessionAdmin", "OutboxEntryAdmin", "RunAdmin", "SessionEventAdmin"]
