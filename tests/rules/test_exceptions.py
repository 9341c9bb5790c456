"""Errors say what they know, also in another process."""

from __future__ import annotations

import pickle

import pytest

from django_chat_sessions import exceptions
from django_chat_sessions.exceptions import ChatSessionError, InvalidRequest, SequenceConflict
from django_chat_sessions.rules.timeouts import TimeoutOverrides, merge


@pytest.mark.parametrize(
    "error", [InvalidRequest({"title": ["Too long."]}), SequenceConflict(last_sequence=7), ChatSessionError("Said.")]
)
def test_an_error_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.data) == (type(error), str(error), error.data)


def test_every_error_has_a_message_of_its_own():
    kinds = [
        kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, ChatSessionError)
    ]
    messages = [str(kind()) for kind in kinds]
    assert all(messages)
    assert len(set(messages)) == len(messages)


def test_what_was_not_attached_is_missing():
    with pytest.raises(AttributeError):
        _ = SequenceConflict().last_sequence


def test_an_unknown_mode_is_refused_by_its_field():
    with pytest.raises(InvalidRequest) as refused:
        merge(TimeoutOverrides(mode="bogus"))
    assert list(refused.value.errors) == ["mode"]
