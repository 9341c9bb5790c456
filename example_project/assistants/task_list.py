"""The rule-based assistant: it keeps a list of tasks in the session's state.

The state is ``{"tasks": {"1": {"title": "Review Q4 budget", "done": false}}, "current": "1"}``. The tasks are an
object rather than a list because changes are applied as a merge patch: two tasks created at once both survive.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from django_chat_sessions.agents import Turn

    State = dict[str, Any]

HELP = "I keep a list of tasks. Try “Create a task: Review Q4 budget”, “Mark it complete” or “Show my tasks”."
NO_TITLE = "What is the task? For example: “Create a task: Review Q4 budget”."
NOTHING_OPEN = "There is no open task. Try “Create a task: Review Q4 budget”."
NO_TASKS = "There are no tasks yet. Try “Create a task: Review Q4 budget”."

_TARGET = r"(?:it|this|that|(?:the |this |that |my )?(?:last |current )?task|(?:task )?#?(?P<number>\d+))"
_CREATE = re.compile(
    r"(?:please )?(?:create|add|make|new)\b(?: an?| another| the)?(?: new)? ?task\b"
    r"\s*[:,\u2013\u2014-]?\s*(?P<title>.*)",
    re.IGNORECASE | re.DOTALL,
)
_COMPLETE = re.compile(
    rf"(?:please )?(?:(?:mark|set|tick) {_TARGET}(?: as)? (?:complete|completed|done|finished)"
    rf"|(?:complete|finish) {_TARGET.replace('number', 'other')}|it(?: is|'s|\u2019s) done|done)\W*",
    re.IGNORECASE,
)
_SHOW = re.compile(
    r"(?:please )?(?:(?:list|show)(?: me)?|what(?: are|'s|\u2019s| is)).*\btasks?\b.*|(?:my )?tasks\W*",
    re.IGNORECASE | re.DOTALL,
)


def answer(turn: Turn) -> str:
    """Do what the question asks for, or say what can be asked."""
    question = " ".join(turn.question.content.split())
    for pattern, reply in _RULES:
        match = pattern.fullmatch(question)
        if match:
            return reply(turn.state, match)
    return HELP


def _create(state: State, match: re.Match[str]) -> str:
    title = match["title"].strip()
    if not title:
        return NO_TITLE
    tasks = state.setdefault("tasks", {})
    number = str(max(map(int, tasks), default=0) + 1)
    tasks[number] = {"title": title, "done": False}
    state["current"] = number
    return "✓ Created"


def _complete(state: State, match: re.Match[str]) -> str:
    tasks = state.get("tasks", {})
    asked = match["number"] or match["other"]
    if asked and asked not in tasks:
        return f"There is no task {asked}."
    number = asked or _last_open(state)
    if number is None:
        return NOTHING_OPEN
    tasks[number]["done"] = True
    state["current"] = number
    return "✓ Marked complete"


def _last_open(state: State) -> str | None:
    """Return the task that is being talked about, or the latest that is still open."""
    tasks = state.get("tasks", {})
    candidates = [state.get("current"), *sorted(tasks, key=int, reverse=True)]
    return next((n for n in candidates if n in tasks and not tasks[n]["done"]), None)


def _show(state: State, match: re.Match[str]) -> str:
    tasks = state.get("tasks", {})
    lines = (
        f"{number}. {'☑' if tasks[number]['done'] else '☐'} {tasks[number]['title']}"
        for number in sorted(tasks, key=int)
    )
    return "\n".join(lines) or NO_TASKS


_RULES: tuple[tuple[re.Pattern[str], Callable[[State, re.Match[str]], str]], ...] = (
    (_CREATE, _create),
    (_COMPLETE, _complete),
    (_SHOW, _show),
)
