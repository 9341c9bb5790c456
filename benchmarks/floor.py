"""The floor: what somebody writes by hand who needs exactly this, for the same tables, indexes and triggers.

Each is one statement, prepared, in autocommit, over psycopg alone. It keeps what the library keeps (the same columns
of the same rows move, a session that is over takes nothing) for one fixed timeout, and knows no strategies, limits,
repeats, owners or errors. The readers return the same bytes, or the same values.
"""

from __future__ import annotations

import os
from typing import Any

import psycopg

_ACTIVITY = """
    last_activity_at = GREATEST(last_activity_at, clock_timestamp()),
    renewed_at = GREATEST(renewed_at, clock_timestamp()),
    expires_at = GREATEST(
        expires_at, LEAST(clock_timestamp() + interval '30 minutes', created_at + interval '12 hours')
    ),
    warned_at = NULL
"""

_LIVE = "status IN ('created', 'active', 'resumed') AND expires_at > clock_timestamp()"


def _append(where: str) -> str:
    return f"""
    WITH bumped AS (
        UPDATE chat_sessions_chatsession
        SET last_sequence = last_sequence + 1, message_count = message_count + 1, status = 'active', {_ACTIVITY}
        WHERE {where} AND {_LIVE}
        RETURNING id, last_sequence, last_activity_at
    ), added AS (
        INSERT INTO chat_sessions_sessionevent
            (session_id, sequence, type, role, content, data, position, created_at)
        SELECT id, last_sequence, 'message', 'user', %s, '{{}}', last_sequence, last_activity_at FROM bumped
    )
    SELECT last_sequence, last_activity_at FROM bumped
    """


#: Append a message: the session, and its content.
APPEND = _append("id = %s")

#: … to a session by its public id.
APPEND_PUBLIC = _append("uuid = %s")

#: Come back to a session that was not idle for long.
RESUME = f"UPDATE chat_sessions_chatsession SET {_ACTIVITY} WHERE id = %s AND {_LIVE} RETURNING expires_at"

_INSTANT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

_MESSAGE = f"""json_build_object(
    'sequence', position,
    'external_id', COALESCE(external_id, data->>'external_id'),
    'role', role,
    'content', content,
    'parts', COALESCE(data->'parts', '[]'),
    'metadata', COALESCE(data->'metadata', '{{}}'),
    'run', data->>'run',
    'token_count', token_count,
    'created_at', COALESCE(data->>'created_at', {_INSTANT.format("created_at")}),
    'edited_at', CASE WHEN type = 'message.edited' THEN {_INSTANT.format("created_at")} END
)"""


_CURRENT = "superseded_by IS NULL AND type IN ('message', 'message.edited')"

#: The last 50 messages of a session as JSON text.
LAST_50 = f"""
    SELECT COALESCE(json_agg({_MESSAGE} ORDER BY position), '[]')::text
    FROM (
        SELECT * FROM chat_sessions_sessionevent
        WHERE session_id = %s AND {_CURRENT} ORDER BY position DESC LIMIT 50
    ) event
"""

#: … of a session by its public id, whether there are more, and the first and the last one's place.
LAST_50_PUBLIC = f"""
    SELECT COALESCE(json_agg({_MESSAGE} ORDER BY position) FILTER (WHERE n <= 50), '[]')::text,
        count(*) > 50, min(position) FILTER (WHERE n <= 50), max(position)
    FROM (
        SELECT *, row_number() OVER (ORDER BY position DESC) AS n FROM chat_sessions_sessionevent
        WHERE session_id = (SELECT id FROM chat_sessions_chatsession WHERE uuid = %s) AND {_CURRENT}
        ORDER BY position DESC LIMIT 51
    ) event
"""

#: Open a session: its public id and owner.
OPEN = """
    WITH opened AS (
        INSERT INTO chat_sessions_chatsession
            (uuid, owner_id, agent, application, tenant, title, tags, status, metadata, environment, state,
             created_at, last_activity_at, renewed_at, expires_at, end_reason, strategy, last_sequence,
             message_count, token_count, renewal_count, is_held)
        SELECT %s, %s, '', '', '', '', '[]', 'created', '{}', '{}', '{}', now, now, now,
            now + interval '30 minutes', '', 'multiple', 1, 0, 0, 0, false
        FROM clock_timestamp() now
        RETURNING id, uuid, created_at
    )
    INSERT INTO chat_sessions_sessionevent (session_id, sequence, type, role, content, data, created_at)
    SELECT id, 1, 'session.created', '', '', %s, created_at FROM opened
    RETURNING session_id
"""

#: A user's latest sessions, every column that a session's JSON needs.
LATEST = """
    SELECT s.uuid, s.external_id, s.agent, s.application, s.title, s.status, s.strategy, s.client, s.tags,
        s.metadata, s.environment, s.timeout_mode, s.timeout_minutes, s.max_duration_minutes,
        s.warning_threshold_minutes, s.auto_renew, s.created_at, s.last_activity_at, s.expires_at, s.ended_at,
        s.end_reason, s.renewal_count, s.message_count, s.token_count, s.last_sequence, s.forked_from_sequence,
        (SELECT uuid FROM chat_sessions_chatsession WHERE id = s.parent_id),
        (SELECT uuid FROM chat_sessions_chatsession WHERE id = s.root_id),
        (SELECT uuid FROM chat_sessions_chatsession WHERE id = s.forked_from_id),
        statement_timestamp()
    FROM chat_sessions_chatsession s WHERE s.owner_id = %s
    ORDER BY s.last_activity_at DESC, s.uuid DESC LIMIT 21
"""

_EVENT = """
    INSERT INTO chat_sessions_sessionevent (session_id, sequence, type, role, content, data, created_at)
    SELECT id, last_sequence, '{}', '', '', {}, statement_timestamp() FROM s
"""


def _batch(where: str, since: str) -> str:
    return f"""
    WITH due AS MATERIALIZED (
        SELECT id FROM chat_sessions_chatsession WHERE {where}
        ORDER BY {since} LIMIT %(size)s FOR UPDATE SKIP LOCKED
    )"""


def _record(where: str, columns: str, event: str, data: str) -> str:
    return f"""{_batch(where, "expires_at")}, s AS (
        UPDATE chat_sessions_chatsession s SET last_sequence = last_sequence + 1, {columns}
        FROM due WHERE s.id = due.id RETURNING s.id, s.last_sequence, s.expires_at, s.end_reason
    )
    {_EVENT.format(event, data)}
    """


_OF_AGENT = "status IN ('created', 'active', 'resumed') AND agent = %(agent)s AND expires_at"

#: Record the expiry of as many sessions of an agent.
EXPIRE = _record(
    f"{_OF_AGENT} <= statement_timestamp()",
    """status = 'expired', ended_at = expires_at, settled_at = expires_at, end_reason = CASE
        WHEN expires_at >= created_at + interval '7 days' THEN 'max_duration' ELSE 'idle_timeout' END""",
    "session.expired",
    f"jsonb_build_object('reason', end_reason, 'ended_at', {_INSTANT.format('expires_at')})",
)

#: Record that as many sessions of an agent are about to expire, within so many minutes.
WARN = _record(
    f"{_OF_AGENT} > statement_timestamp() AND warned_at IS NULL"
    " AND expires_at <= statement_timestamp() + make_interval(mins => %(minutes)s)",
    "warned_at = statement_timestamp()",
    "session.expiring",
    f"jsonb_build_object('expires_at', {_INSTANT.format('expires_at')}, 'threshold_minutes', %(minutes)s::int)",
)

_KEPT = """settled_at IS NOT NULL AND NOT is_held AND status = %(status)s AND application = %(application)s
    AND agent = %(agent)s AND settled_at <= statement_timestamp() - make_interval(days => %(days)s)"""

#: Delete as many sessions; what is theirs goes by the foreign keys (``PURGING``).
PURGE = f"""{_batch(_KEPT, "settled_at")}
    DELETE FROM chat_sessions_chatsession s USING due WHERE s.id = due.id
"""

#: For the whole connection: no event is looked at for itself when it goes with its session.
PURGING = "SET chat_sessions.purging = 'on'"

_ARCHIVED = """'{"reason": "retention", "stored": false}'"""

#: Remove the content of as many sessions.
ARCHIVE = f"""{_batch(_KEPT, "settled_at")}, s AS (
        UPDATE chat_sessions_chatsession s SET last_sequence = last_sequence + 1, status = 'archived', state = '{{}}',
            settled_at = statement_timestamp()
        FROM due WHERE s.id = due.id RETURNING s.id, s.last_sequence
    ), erased AS (
        UPDATE chat_sessions_sessionevent e SET content = '', external_id = NULL, data = CASE
            WHEN type IN ('message', 'message.edited') THEN '{{"erased": true, "metadata": {{"erased": true}}}}'::jsonb
            WHEN type IN ('state.changed', 'context.compacted') OR type LIKE 'app.%%' THEN '{{"erased": true}}'::jsonb
            ELSE data - 'state' END
        FROM due WHERE e.session_id = due.id AND (type IN ('message', 'message.edited', 'state.changed',
            'context.compacted', 'session.created', 'session.ended', 'session.failed', 'session.restored')
            OR type LIKE 'app.%%')
    )
    {_EVENT.format("session.archived", _ARCHIVED)}
"""

#: For the whole connection: content may be removed from events.
ERASING = "SET chat_sessions.erasing = 'on'"


def connect() -> psycopg.Connection[Any]:
    """Return a connection as the floor uses it: autocommit, everything prepared at once."""
    return psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True, prepare_threshold=0)
