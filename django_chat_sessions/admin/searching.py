"""What the search boxes find."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Q

from ..models import ChatSession
from .listing import newest

if TYPE_CHECKING:
    from django.db.models import QuerySet

#: Matches of one kind that a search gives, newest first, and users whose sessions it looks for.
MATCHES = 1_000
USERS = 100


def public_id(term: str) -> UUID | None:
    """Return the public id that somebody typed or pasted, in any spelling."""
    try:
        return UUID(term.strip())
    except ValueError:
        return None


def sessions(rows: QuerySet[Any], term: str) -> QuerySet[Any]:
    """Return those of the sessions that a term finds: a public id exactly, else the owner's name or words of the title.

    Keys are looked up by one question each that an index answers or ``newest`` bounds; one question with an OR
    between them would walk the table.
    """
    term = term.strip()
    if not term:
        return rows
    uuid = public_id(term)
    if uuid is not None:
        return rows.filter(uuid=uuid)
    plain = rows.order_by("-pk").values_list("pk", flat=True)
    owned = plain.filter(owner__in=_users(rows.db, term))[:MATCHES]
    words = reduce(operator.and_, (Q(title__icontains=word) for word in term.split()))
    titled = newest(plain.filter(words))[:MATCHES]
    return rows.filter(pk__in={*owned, *titled})


def _users(using: str, term: str) -> list[Any]:
    model = get_user_model()
    users = model._base_manager.using(using).values_list("pk", flat=True)
    exactly = users.filter(**{model.USERNAME_FIELD: term})
    like = users.filter(**{f"{model.USERNAME_FIELD}__icontains": term})[:USERS]
    return [*exactly, *like]


def of_session(rows: QuerySet[Any], term: str) -> QuerySet[Any]:
    """Return those of the rows that belong to the session of that public id; nothing for anything else."""
    if not term.strip():
        return rows
    uuid = public_id(term)
    if uuid is None:
        return rows.none()
    key = ChatSession.objects.using(rows.db).filter(uuid=uuid).values_list("pk", flat=True).first()
    return rows.none() if key is None else rows.filter(session=key)
