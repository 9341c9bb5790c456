"""The agent “model”: a real model behind it, where the environment names one.

``OPENAI_API_KEY`` alone is OpenAI; ``OPENAI_BASE_URL`` and ``OPENAI_MODEL`` are any server that speaks its protocol,
for example Ollama: ``http://localhost:11434/v1`` and ``llama3.2``.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

from django_chat_sessions.agents import Agent, register, unregister
from example_project import environment as env

if TYPE_CHECKING:
    from django_chat_sessions.agents import Turn

logger = logging.getLogger(__name__)

NAME = "model"
VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL")
DEFAULT_MODEL = "gpt-5.4-mini"
SYSTEM = "You are a friendly assistant. Answer briefly. Remember what people want you to remember."

NOTHING = {"type": "object", "properties": {}}
FACT = {
    "type": "object",
    "properties": {
        "subject": {"type": "string", "description": "one or two words"},
        "fact": {"type": "string"},
    },
    "required": ["subject", "fact"],
}


def now() -> str:
    return datetime.now(UTC).strftime("%A, %d %B %Y, %H:%M UTC")


def remember(turn: Turn, subject: str, fact: str) -> str:
    """Keep it in the session's state, which outlives the window of messages that the model sees."""
    turn.state.setdefault("facts", {})[subject] = fact
    return "It is remembered."


def prompt(turn: Turn) -> str:
    facts = [f"- {subject}: {fact}" for subject, fact in turn.state.get("facts", {}).items()]
    return "\n".join([SYSTEM, *(["What you remember:", *facts] if facts else [])])


def set_up() -> None:
    """Register the agent where the environment names a model, a server or a key."""
    unregister(NAME)
    if not any(map(env.text, VARIABLES)):
        return
    if find_spec("openai") is None:
        logger.warning("The agent “model” needs the extra: pip install django-chat-sessions[openai]")
        return
    # Only now: it takes a second, and the example runs without it.
    from django_chat_sessions.adapters.openai_chat import OpenAIChat, Tool  # noqa: PLC0415

    chat = OpenAIChat(
        model=env.text("OPENAI_MODEL", DEFAULT_MODEL),
        system=prompt,
        tools=[
            Tool("now", "Says which day and time it is.", NOTHING, now),
            Tool("remember", "Remembers something for the rest of the conversation.", FACT, remember),
        ],
    )
    # It may be asked twice: its tools do nothing that cannot be done again.
    description = "A real model, with two tools: a clock and a memory."
    register(Agent(NAME, chat, description=description, available=chat.is_configured, max_attempts=2))


set_up()
