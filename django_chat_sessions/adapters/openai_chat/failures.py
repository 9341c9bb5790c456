"""How asking a model fails."""

from __future__ import annotations

import re
from collections.abc import Mapping

import openai

#: Statuses that pass by themselves, like those from 500 on; others are about the request.
_PASSING = frozenset({408, 409, 429})
_SECRETS = re.compile(r"\b(?:sk-|bearer\s+)[^\s\"',;})]+", re.IGNORECASE)


class ModelFailed(Exception):
    """The model gave no answer, or not all of it; the message says why and holds no key."""


class ModelRefused(ModelFailed):
    """The model's server refused: the key, the model's name, the request or what it is about."""


class ModelUnavailable(ModelFailed):
    """The model's server could not be reached, is busy or broken, also when asked again."""


class ModelInterrupted(ModelFailed):
    """The answer broke off, or what came was not an answer."""


class ToolFailed(Exception):
    """Raised by a tool to tell the model, in the words of its message, what went wrong."""


def refused(error: openai.OpenAIError, *, key: str) -> ModelFailed:
    """Return what to raise where nothing was answered."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    if status is None or status in _PASSING or status >= 500:
        return ModelUnavailable(_message(error, key))
    return ModelRefused(_message(error, key))


def interrupted(error: Exception, *, key: str) -> ModelFailed:
    """Return what to raise where the answer had begun."""
    return ModelInterrupted(_message(error, key))


def _message(error: Exception, key: str) -> str:
    """Say what the server said; that may repeat the key, which is why the SDK's exceptions are not passed on."""
    body = error.body if isinstance(error, openai.APIError) else None
    said = body.get("message") if isinstance(body, Mapping) else None
    status = f" {error.status_code}" if isinstance(error, openai.APIStatusError) else ""
    text = str(said or error).replace(key or "\0", "***")
    return f"{type(error).__name__}{status}: {_SECRETS.sub('***', text)[:500]}"
