"""Signals: sent with ``send_robust`` after the transaction committed. They announce and never decide.

Every signal is sent with ``sender=ChatSession`` and ``session``, the session as it then was.
"""

from django.dispatch import Signal

#: A session was opened. Arguments: ``session``.
session_opened = Signal()

#: A session came back after idleness. Arguments: ``session``, ``idle_seconds``.
session_resumed = Signal()

#: A session will expire soon. Arguments: ``session``.
session_expiring = Signal()

#: A session's expiry was recorded. Arguments: ``session``.
session_expired = Signal()

#: A session was ended on purpose. Arguments: ``session``, ``reason``.
session_ended = Signal()

#: A session was declared broken. Arguments: ``session``, ``reason``.
session_failed = Signal()

#: Messages or other events were added. Arguments: ``session``, ``entries``, a tuple of
#: ``django_chat_sessions.log.Entry``, and ``last_sequence``.
events_appended = Signal()
