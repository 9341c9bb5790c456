"""What the records look like in JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from ..agents import Message
from ..choices import LIVE, Status
from ..log import iso
from ..models import ChatSession, Run
from ..operations import endings
from ..rules import timeouts


def session_object(session: ChatSession, now: datetime) -> dict[str, Any]:
    """Return a session as it reads at ``now``."""
    status = session.status_at(now)
    policy = session.policy
    remaining = max(0.0, (session.expires_at - now).total_seconds()) if status in LIVE else 0.0
    ended_at, end_reason = session.ended_at, session.end_reason
    if status == Status.EXPIRED and ended_at is None:
        ended_at, end_reason = session.expires_at, endings.reason(session)
    return {
        "id": str(session.uuid),
        "external_id": session.external_id,
        "agent": session.agent,
        "application": session.application,
        "title": session.title,
        "status": str(status),
        "is_near_expiration": status in LIVE and remaining <= policy.warning_threshold_minutes * 60,
        "parent": session.parent_uuid and str(session.parent_uuid),
        "root": str(session.root_uuid),
        "forked_from": _source(session),
        "strategy": session.strategy,
        "client": session.client,
        "tags": session.tags,
        "metadata": session.metadata,
        "environment": session.environment,
        "timeout": timeout_object(policy),
        "created_at": iso(session.created_at),
        "last_activity_at": iso(session.last_activity_at),
        "expires_at": iso(session.expires_at),
        "time_remaining_seconds": round(remaining, 3),
        "ended_at": ended_at and iso(ended_at),
        "end_reason": end_reason,
        "renewal_count": session.renewal_count,
        "message_count": session.message_count,
        "token_count": session.token_count,
        "last_sequence": session.last_sequence,
    }


def _source(session: ChatSession) -> dict[str, Any] | None:
    if session.source_uuid is None:
        return None
    return {"id": str(session.source_uuid), "sequence": session.forked_from_sequence}


def timeout_object(policy: timeouts.TimeoutPolicy) -> dict[str, Any]:
    """Return the timeouts in force."""
    shown = {**asdict(policy), "mode": str(policy.mode)}
    del shown["later_warnings"]  # what a session says itself, and so what the contract knows, is one
    return shown


def message_object(message: Message) -> dict[str, Any]:
    """Return a message."""
    return {
        "sequence": message.sequence,
        "external_id": message.external_id,
        "role": str(message.role),
        "content": message.content,
        "parts": list(message.parts),
        "metadata": dict(message.metadata),
        "run": message.run,
        "token_count": message.token_count,
        "created_at": message.created_at and iso(message.created_at),
        "edited_at": message.edited_at and iso(message.edited_at),
    }


def run_object(run: Run) -> dict[str, Any]:
    """Return a run."""
    return {
        "id": str(run.uuid),
        "status": run.status,
        "error": run.error or None,
        "input_sequence": run.input_sequence,
        "output_sequence": run.output_sequence,
        "created_at": iso(run.created_at),
        "started_at": run.started_at and iso(run.started_at),
        "first_token_at": run.first_token_at and iso(run.first_token_at),
        "finished_at": run.finished_at and iso(run.finished_at),
        "attempt": run.attempt,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "cost": run.cost if run.cost is None else str(run.cost),
    }
