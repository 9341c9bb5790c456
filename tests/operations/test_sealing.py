"""Sealed transcripts: they come back as they were, to whom they were given, and nobody can make one."""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core import signing
from hypothesis import given
from hypothesis import strategies as st

from django_chat_sessions.agents import Message
from django_chat_sessions.choices import Role
from django_chat_sessions.exceptions import InvalidRequest
from django_chat_sessions.operations import sealing
from django_chat_sessions.operations.sealing import Transcript

pytestmark = pytest.mark.django_db

texts = st.text(st.sampled_from('ab\x00\ud83d\ude00\udfff\ufdd0é漢😀"\\:') | st.characters(), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=3)
CHANGES = ["replace", "insert", "delete", "cut", "repeat"]
past = st.datetimes(datetime(2000, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
messages = st.builds(
    Message,
    role=st.sampled_from(Role.values),
    content=texts,
    parts=st.lists(objects, max_size=2).map(tuple),
    metadata=objects,
    token_count=st.none() | st.integers(0, 2**31 - 1),
    created_at=st.none() | past,
)
transcripts = st.builds(Transcript, agent=texts, messages=st.lists(messages, max_size=4).map(tuple), state=objects)


class Owner:
    """Somebody with a key; no table is needed for that."""

    def __init__(self, pk: Any) -> None:
        self.pk = pk


ALICE, BOB = Owner(1), Owner(2)
TALK = Transcript("echo", (Message("user", "Hello"), Message("assistant", "Hello")), {"n": 1})


def sealed(transcript: Transcript = TALK, owner: Any = ALICE) -> str:
    text = sealing.seal(transcript, owner)
    assert text is not None
    return text


def refused(text: str, owner: Any = ALICE, **more: Any) -> str:
    with pytest.raises(InvalidRequest) as error:
        sealing.unseal(text, owner, **more)
    assert list(error.value.errors) == ["transcript"]
    return str(error.value.errors["transcript"][0])


# -------------------------------------------------------------------------------------------------------- comes back


@given(transcripts)
def test_transcript_comes_back_as_it_was(transcript: Transcript) -> None:
    assert sealing.unseal(sealed(transcript), ALICE, agent=transcript.agent) == transcript


def test_transcript_comes_back_as_often_as_it_is_brought() -> None:
    text = sealed()
    assert sealing.unseal(text, ALICE) == sealing.unseal(text, ALICE) == TALK


def test_transcript_of_nobody_is_nobodys() -> None:
    text = sealed(owner=None)
    assert sealing.unseal(text, None) == TALK
    refused(text, Owner("None"))
    refused(sealed(owner=Owner("None")), None)


def test_instant_that_is_still_to_come_is_dropped() -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=30)
    text = sealed(Transcript("echo", (Message("user", "Hello", created_at=ahead),)))
    assert sealing.unseal(text, ALICE).messages[0].created_at is None
    with time_machine.travel(ahead + timedelta(seconds=1), tick=False):
        assert sealing.unseal(text, ALICE).messages[0].created_at == ahead


def test_long_conversation_takes_less_room_than_its_words() -> None:
    talk = Transcript("echo", tuple(Message("user", "the same again " * 10) for _ in range(100)))
    assert len(sealed(talk)) < 1500


def test_transcript_that_no_request_could_bring_back_is_not_given(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 4000
    assert sealing.seal(Transcript("echo", (Message("user", "x" * 1500),)), ALICE) is not None
    assert sealing.seal(Transcript("echo", (Message("user", "x" * 2500),)), ALICE) is None
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert sealing.seal(Transcript("echo", (Message("user", "x" * 2500),)), ALICE) is not None


@given(st.binary(min_size=400, max_size=1400))
def test_transcript_that_is_given_leaves_room_for_a_question(noise: bytes) -> None:
    from django.test import override_settings

    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=4000):
        text = sealing.seal(Transcript("echo", (Message("user", noise.decode("latin-1")),)), ALICE)
    assert text is None or len(text) < 3000


def test_transcript_longer_than_a_session_may_be_is_not_given(settings: Any) -> None:
    settings.CHAT_SESSIONS = {"MAX_MESSAGES": 1}
    assert sealing.seal(TALK, ALICE) is None


# ------------------------------------------------------------------------------------------------------------- forging


@given(st.integers(0, 10_000), st.characters(codec=None), st.sampled_from(CHANGES))
def test_text_that_was_changed_anywhere_is_refused(place: int, other: str, change: str) -> None:
    text = sealed()
    place %= len(text)
    other = other if other != text[place] else "~"
    changed = {
        "replace": text[:place] + other + text[place + 1 :],
        "insert": text[:place] + other + text[place:],
        "delete": text[:place] + text[place + 1 :],
        "cut": text[:place],
        "repeat": text + text[: place + 1],
    }[change]
    refused(changed)


@given(st.text(max_size=200) | st.text(st.sampled_from(":.-_aZ0é\x00\ud800="), max_size=60))
def test_any_other_text_is_refused(text: str) -> None:
    refused(text)


def opened(text: str) -> Any:
    """Read what is signed, as anybody can."""
    payload = text.partition(":")[0].removeprefix(".")
    data = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    return json.loads(zlib.decompress(data) if text.startswith(".") else data)


def test_what_is_sealed_can_be_read_but_not_rewritten() -> None:
    text = sealed()
    said = opened(text)
    assert said["messages"][1] == {"role": "assistant", "content": "Hello"}
    said["messages"][1]["content"] = "The refund is granted."
    payload = urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    _, instant, signature = text.split(":")
    refused(":".join([payload, instant, signature]))


def test_signature_of_another_transcript_is_refused() -> None:
    first, second = sealed().split(":"), sealed(Transcript("echo", (Message("user", "Bye"),))).split(":")
    refused(":".join([first[0], *second[1:]]))
    refused(":".join([second[0], *first[1:]]))


@pytest.mark.parametrize("salt", ["django.core.signing", "chat_sessions", "django_chat_sessions"])
def test_what_the_project_signed_for_another_purpose_is_refused(salt: str) -> None:
    refused(signing.dumps(opened(sealed()), salt=salt))


def test_transcript_signed_for_something_else_with_the_same_key_is_refused() -> None:
    refused(signing.TimestampSigner().sign(sealed().split(":")[0]))
    refused(signing.Signer(salt=sealing.SALT).sign(sealed().split(":")[0]))


def test_words_of_another_release_are_refused_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "VERSION", 2)
        text = sealed()
    refused(text)


def test_somebody_elses_transcript_is_as_good_as_forged() -> None:
    text = sealed()
    assert refused(text, BOB) == refused(text, None) == refused(text + "x", ALICE)


def test_transcript_of_another_agent_is_refused() -> None:
    assert "another agent" in refused(sealed(), agent="tasks")
    assert refused(sealed(), agent="")


# ------------------------------------------------------------------------------------------------------ time and keys


def test_transcript_expires(settings: Any) -> None:
    settings.CHAT_SESSIONS = {"TRANSCRIPT_SECONDS": 60}
    began = datetime(2026, 5, 1, 9, tzinfo=UTC)
    with time_machine.travel(began, tick=False):
        text = sealed()
    with time_machine.travel(began + timedelta(seconds=59), tick=False):
        assert sealing.unseal(text, ALICE) == TALK
    with time_machine.travel(began + timedelta(seconds=62), tick=False):
        assert "expired" in refused(text)


def test_keys_rotate(settings: Any) -> None:
    text = sealed()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the next", [settings.SECRET_KEY]
    assert sealing.unseal(text, ALICE) == TALK
    settings.SECRET_KEY_FALLBACKS = []
    refused(text)
