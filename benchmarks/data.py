"""What is in the tables before anything is measured, and where each measurement finds what it needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_chat_sessions.models import ChatSession
from django_chat_sessions.operations import opening

from .crew import TEXT

#: Messages of the sessions that are resumed.
LENGTHS = (10, 1_000, 100_000)

#: Sessions of the user whose latest are listed.
LISTED = 10_000

_MESSAGES = """
    INSERT INTO chat_sessions_sessionevent
        (session_id, sequence, type, role, content, data, position, created_at)
    SELECT %s, n + 1, 'message', CASE WHEN n %% 2 = 0 THEN 'assistant' ELSE 'user' END, %s || ' (' || n || ')', '{}',
        n + 1, now() - interval '1 hour' + n * interval '30 milliseconds'
    FROM generate_series(1, %s) n
"""


def user(name: str) -> Any:
    """Return the user of that name."""
    return get_user_model().objects.get_or_create(username=name)[0]


def opened(owner: Any, count: int = 1, *, agent: str = "") -> list[ChatSession]:
    """Open new sessions, live for as long as a benchmark may take."""
    return [opening.open(owner, agent=agent).session for _ in range(count)]


def long(owner: Any, length: int) -> ChatSession:
    """Open a session with so many messages."""
    session = opened(owner)[0]
    with connection.cursor() as cursor:
        cursor.execute(_MESSAGES, [session.pk, TEXT, length])
    ChatSession.objects.filter(pk=session.pk).update(last_sequence=length + 1, message_count=length, status="active")
    session.refresh_from_db()
    return session


def many(owner: Any, count: int) -> None:
    """Give a user many sessions, over the last month."""
    now = timezone.now()
    sessions = []
    for number in range(count):
        at = now - timedelta(minutes=4 * number)
        sessions.append(
            ChatSession(
                owner=owner,
                title=f"Conversation {number}",
                metadata={"number": number},
                created_at=at,
                last_activity_at=at,
                renewed_at=at,
                expires_at=at + timedelta(minutes=30),
                last_sequence=1,
            )
        )
    ChatSession.objects.bulk_create(sessions, batch_size=1000)


def settle() -> None:
    """Let the planner know, as autovacuum does in its own time."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE chat_sessions_chatsession")
        cursor.execute("VACUUM ANALYZE chat_sessions_sessionevent")
        cursor.execute("CHECKPOINT")


def disorder(sessions: list[int]) -> list[str]:
    """Return what is wrong with the logs of sessions: gaps, repeats, counters, or one writer's messages in disorder."""
    sql = """
        SELECT s.id, s.last_sequence, s.message_count, array_agg(e.sequence ORDER BY e.sequence),
            array_agg(e.content ORDER BY e.sequence) FILTER (WHERE e.type = 'message')
        FROM chat_sessions_chatsession s JOIN chat_sessions_sessionevent e ON e.session_id = s.id
        WHERE s.id = ANY(%s) GROUP BY s.id
    """
    wrong = []
    with connection.cursor() as cursor:
        cursor.execute(sql, [sessions])
        for pk, last, count, sequences, contents in cursor.fetchall():
            if sequences != list(range(1, last + 1)) or len(contents or ()) != count:
                wrong.append(f"session {pk}: {len(sequences)} events, last {last}, {count} messages")
            latest: dict[str, int] = {}
            for content in contents or ():
                writer, number, _ = content.split(" ", 2)
                if latest.get(writer, -1) >= int(number):
                    wrong.append(f"session {pk}: writer {writer} in disorder at {number}")
                latest[writer] = int(number)
    return wrong
