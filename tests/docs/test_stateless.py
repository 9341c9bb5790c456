"""The page about stateless questions says what the code says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_chat_sessions.api.serializers import QueryBody
from django_chat_sessions.operations import verification
from tests.docs import pages

PAGE = pages.DOCS / "stateless.md"


def named(heading: str, row: int = 0) -> set[str]:
    return {name for cells in pages.rows(PAGE, after=heading) for name in pages.code(cells[row])}


@pytest.mark.django_db
def test_answer_has_the_fields_that_the_page_shows(api_of: Any, alice: Any) -> None:
    shown = json.loads(pages.blocks("json", page=PAGE)[0].code)
    answer = api_of(alice).post("/api/chat/agents/echo/query", {"content": "Good morning"}).json()
    assert keys(answer) == keys(shown)
    assert set(answer) <= named("## Asking")


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: keys(inner) for name, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


def test_every_field_of_a_question_is_documented() -> None:
    assert set(QueryBody().fields) <= named("## Asking")


@pytest.mark.django_db
def test_examples_work(alice: Any) -> None:
    names: dict[str, Any] = {}
    block = pages.blocks("python", page=PAGE)[0]
    exec(compile(block.code, str(block), "exec"), names)
    session = names["keep"](alice, names["chat"](alice, "one", "two"))
    assert (session.agent, session.message_count) == ("echo", 4)
    assert verification.verify(session) == []
