"""Deleting what was kept for long enough: whole sessions, whole trees, and what a project's own tables say to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, models, transaction
from django.db.models.signals import post_delete, pre_delete

from django_chat_sessions import chunks, dialects, logs
from django_chat_sessions.agents import Message
from django_chat_sessions.models import Archive, ChatSession, OutboxEntry, Run, RunChunk, SessionEvent
from django_chat_sessions.operations import opening, privacy, purging, runs, sessions, sweeps
from django_chat_sessions.testing import make_session, say
from tests.operations.reading import fresh, texts

pytestmark = pytest.mark.django_db

#: Whatever holds something of a session.
TABLES = (ChatSession, SessionEvent, Run, RunChunk, OutboxEntry)


@pytest.fixture(autouse=True)
def deletes(configured) -> None:
    """Delete what has been over for more than a day."""
    configured(RETENTION={**dict.fromkeys(("expired", "ended", "failed", "archived"), 1), "action": "delete"})


@pytest.fixture
def below(alice) -> Callable[..., ChatSession]:
    """Return a function that opens a session below another."""
    return lambda parent, **fields: make_session(alice, **{"agent": "silent", **fields}, parent=parent)


@pytest.fixture
def tree(session, below) -> list[ChatSession]:
    """Return a top, two children, and two children of the first of them."""
    children = [below(session), below(session)]
    return [session, *children, below(children[0]), below(children[0])]


def over(*found: ChatSession, days: float = 2) -> None:
    """Let sessions be over, and have been for some days."""
    for session in found:
        if fresh(session).ended_at is None:
            sessions.end(session)
    settled_at = dialects.now("default") - timedelta(days=days)
    ChatSession.objects.filter(pk__in=[session.pk for session in found]).update(settled_at=settled_at)


def there(found: list[ChatSession]) -> list[int]:
    """Return which of these are still there, by their places in the list."""
    left = set(ChatSession.objects.values_list("pk", flat=True))
    return [number for number, session in enumerate(found) if session.pk in left]


# --------------------------------------------------------------------------------------------------------------- whole


def test_a_session_goes_with_everything_that_is_its(alice, configured):
    configured(SUBSCRIBERS={"*": ["tests.nowhere.to_be_found"]})
    session = make_session(alice, agent="pieces")
    runs.ask(session, Message("user", "hello"))
    chunks.RunChunk.objects.create(
        session=session, run=Run.objects.get(), sequence=1, index=77, text="x", created_at=session.created_at
    )
    over(session)
    OutboxEntry.objects.update(set_aside_at=session.created_at)
    assert all(table._base_manager.exists() for table in TABLES)
    assert purging.purge().count == 1
    assert [table.__name__ for table in TABLES if table._base_manager.exists()] == []


def test_its_file_is_left_to_be_removed(session):
    now = dialects.now("default")
    Archive.objects.create(session=session, storage="x", name="a.gz", leased_until=now, created_at=now)
    over(session)
    assert purging.purge().count == 1
    assert Archive.objects.get().session is None


def test_others_are_left_as_they_are(session, alice, bob):
    theirs, live = make_session(bob, agent="silent"), make_session(alice, agent="silent")
    say(live, "still here")
    over(session)
    over(theirs, days=0.5)
    assert purging.purge().count == 1
    assert set(ChatSession.objects.all()) == {theirs, live}
    assert texts(live) == ["still here"]


def test_a_fork_keeps_its_copy(session):
    say(session, "original")
    fork = opening.fork(session)
    over(session)
    assert purging.purge().count == 1
    found = fresh(fork)
    assert (found.forked_from, texts(found)) == (None, ["original"])


def test_a_session_that_is_purged_twice_at_once_is_counted_once(session):
    over(session)
    assert purging.purge().count == 1
    assert purging.purge().count == 0


# ---------------------------------------------------------------------------------------------------------------- trees


def test_a_tree_goes_whole(tree):
    over(*tree)
    assert purging.purge().count == 5
    assert not ChatSession.objects.exists()


def test_a_parent_waits_for_what_is_below_it(tree):
    over(*tree[:4])
    over(tree[4], days=0.5)
    assert purging.purge().count == 2
    assert there(tree) == [0, 1, 4]
    over(tree[4])
    assert purging.purge().count == 3


def test_a_parent_takes_along_what_is_below_it_where_the_setting_says_so(tree, configured):
    configured(PURGE_CHILDREN=True)
    over(*tree[1:], days=0.5)
    over(tree[0])
    assert purging.purge().count == 5


def test_whoever_takes_along_takes_nothing_from_beside_or_above(tree, configured):
    configured(PURGE_CHILDREN=True)
    over(*tree, days=0.5)
    over(tree[1])
    assert purging.purge().count == 3
    assert there(tree) == [0, 2]


@pytest.mark.parametrize("takes_along", [False, True])
@pytest.mark.parametrize("why", ["live", "held", "not told"])
def test_what_must_stay_keeps_all_above_it(tree, configured, takes_along, why):
    configured(PURGE_CHILDREN=takes_along, END_CHILDREN=False)
    over(*(tree if why != "live" else tree[:4]))
    if why == "held":
        privacy.hold(tree[4])
    if why == "not told":
        now = dialects.now("default")
        OutboxEntry.objects.create(session=tree[4], sequence=1, subscriber="x", next_attempt_at=now, created_at=now)
    assert purging.purge().count == 2
    assert there(tree) == [0, 1, 4]


def test_below_what_is_held_everything_may_go(tree):
    over(*tree)
    privacy.hold(tree[0])
    assert purging.purge().count == 4
    assert there(tree) == [0]


@pytest.fixture
def removed(monkeypatch) -> list[set[int]]:
    """Return what each transaction deletes."""
    batches: list[set[int]] = []

    def remove(using: str, ids: list[int]) -> None:
        batches.append(set(ids))
        original(using, ids)

    original = logs.remove
    monkeypatch.setattr(logs, "remove", remove)
    return batches


@pytest.mark.parametrize(
    ("bound", "sizes"),
    [
        ({"CASCADE_BOUND": 1}, [1] * 5),
        ({"CASCADE_BOUND": 2}, [2, 2, 1]),
        ({"CASCADE_BOUND": 4}, [4, 1]),
        # Each has two events; one goes in any case.
        ({"SWEEP_EVENTS": 1}, [1] * 5),
        ({"SWEEP_EVENTS": 5}, [2, 2, 1]),
        ({"SWEEP_EVENTS": 10}, [5]),
    ],
)
def test_a_tree_beyond_a_bound_goes_batch_by_batch_and_never_a_parent_first(tree, configured, removed, bound, sizes):
    configured(**bound)
    over(*tree)
    assert purging.purge().count == 5
    assert [len(batch) for batch in removed] == sizes
    gone: set[int] = set()
    for batch in removed:
        gone |= batch
        assert all(child.pk in gone for child in tree if child.parent_id in gone)


def test_trees_that_are_too_long_for_one_transaction_go_one_by_one(alice, below, configured, removed):
    pairs = []
    for _ in range(3):
        top = make_session(alice, agent="silent")
        pairs.append([top, below(top)])
    over(*(session for pair in pairs for session in pair))
    configured(SWEEP_EVENTS=11)
    assert purging.purge().count == 6
    assert removed == [{session.pk for session in pair} for pair in pairs]


def test_a_limit_takes_trees_whole(tree, alice):
    lone = [make_session(alice, agent="silent") for _ in range(2)]
    over(*tree, *lone)
    assert purging.purge(limit=1).count in {1, 5}
    assert purging.purge().count in {2, 6}


def test_trees_of_different_retention_wait_for_the_longest(session, below, agent, configured):
    agent("keeper", retention={"ended": 10})
    child = below(session, agent="keeper")
    over(session, child, days=5)
    assert purging.purge().count == 0
    over(session, child, days=11)
    assert purging.purge().count == 2


def test_a_child_that_is_never_deleted_keeps_its_parent(session, below, agent):
    agent("keeper", retention={"ended": None})
    child = below(session, agent="keeper")
    over(session, child, days=1000)
    assert purging.purge().count == 0
    assert there([session, child]) == [0, 1]


def test_a_parent_whose_agent_leaves_it_to_whoever_comes_does_not_go_with_its_child(session, below, agent, alice):
    agent("lazy", cleanup="lazy")
    top = make_session(alice, agent="lazy")
    child = below(top)
    over(top, child)
    assert purging.purge().count == 1
    assert there([top, child]) == [0]


def test_a_child_whose_agent_leaves_it_to_whoever_comes_goes_with_its_parent(session, below, agent):
    agent("lazy", cleanup="lazy")
    child = below(session, agent="lazy")
    over(session, child)
    assert purging.purge().count == 2


def test_a_tree_that_changes_while_it_is_looked_at_is_left_to_the_next_time(tree, monkeypatch):
    from django_chat_sessions.operations import trees

    def hold(*args: Any) -> list[int]:
        going = original(*args)
        if going:
            privacy.hold(fresh(tree[4]))
        return going

    original = trees._going
    over(*tree)
    with monkeypatch.context() as patch:
        patch.setattr(trees, "_going", hold)
        assert purging.purge().count == 0
    assert there(tree) == [0, 1, 2, 3, 4]
    assert purging.purge().count == 2
    assert there(tree) == [0, 1, 4]


def test_a_preview_counts_what_is_due(tree):
    over(*tree)
    preview = sweeps.preview("purge")
    assert (preview.total, preview.by_status, preview.by_agent) == (5, {"ended": 5}, {"silent": 5})
    assert preview.sample[0].session in {session.uuid for session in tree}
    assert ChatSession.objects.count() == 5


# ----------------------------------------------------------------------------------------------- the project's own


@pytest.fixture
def referring(transactional_db: None) -> Iterator[Callable[..., type[models.Model]]]:
    """Return a function that makes a model of the project's, with a table, that refers to sessions or to theirs."""
    made: list[type[models.Model]] = []

    def referring(to: type[models.Model] = ChatSession, **field: Any) -> type[models.Model]:
        name = f"Note{len(made)}"
        meta = type("Meta", (), {"app_label": "testapp"})
        columns = {"about": models.ForeignKey(to, **field), "Meta": meta, "__module__": "tests.testapp.models"}
        model = type(name, (models.Model,), columns)
        with connection.schema_editor() as editor:
            editor.create_model(model)
        made.append(model)
        return model

    yield referring
    for model in made:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        apps.all_models["testapp"].pop(model._meta.model_name)
    apps.clear_cache()


@pytest.mark.parametrize("related_name", ["+", "notes"])
def test_what_cascades_in_the_project_goes_along(session, referring, related_name):
    notes = referring(on_delete=models.CASCADE, related_name=related_name)
    notes.objects.create(about=session)
    over(session)
    assert purging.purge().count == 1
    assert not notes.objects.exists()
    assert not SessionEvent.objects.exists()


def test_what_is_set_to_null_in_the_project_stays(session, referring):
    notes = referring(on_delete=models.SET_NULL, null=True, related_name="+")
    note = notes.objects.create(about=session)
    over(session)
    assert purging.purge().count == 1
    note.refresh_from_db()
    assert note.about is None


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT, models.DO_NOTHING])
def test_what_the_project_protects_is_left_and_the_others_go(alice, referring, on_delete, caplog):
    notes = referring(on_delete=on_delete, related_name="+")
    found = [make_session(alice, agent="silent") for _ in range(4)]
    notes.objects.create(about=found[1])
    over(*found)
    for _ in range(2):
        assert purging.purge().is_finished
        assert there(found) == [1]
    assert str(found[1].uuid) in caplog.text
    assert found[1].events.count() == 2
    notes.objects.all().delete()
    assert purging.purge().count == 1


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.DO_NOTHING])
def test_what_the_project_protects_in_a_tree_keeps_what_is_above_it(tree, referring, on_delete):
    notes = referring(on_delete=on_delete, related_name="+")
    notes.objects.create(about=tree[4])
    over(*tree)
    purging.purge()
    assert {0, 1, 4} <= set(there(tree))
    assert fresh(tree[4]).parent_id == tree[1].pk
    notes.objects.all().delete()
    purging.purge()
    assert there(tree) == []


def test_what_refers_to_an_event_or_an_answer_is_heeded_too(session, alice, referring):
    events = referring(SessionEvent, on_delete=models.SET_NULL, null=True, related_name="+")
    answers = referring(Run, on_delete=models.CASCADE, related_name="+")
    talk = make_session(alice, agent="echo")
    answers.objects.create(about=runs.ask(talk, Message("user", "q")).run)
    events.objects.create(about=session.events.get())
    over(session, talk)
    assert purging.purge().count == 2
    assert (events.objects.get().about, answers.objects.exists()) == (None, False)


@pytest.mark.parametrize("signal", [pre_delete, post_delete])
def test_who_listens_to_deletions_hears_of_them(session, signal):
    heard: list[int] = []

    def listen(sender: Any, instance: ChatSession, **kwargs: Any) -> None:
        heard.append(instance.uuid)

    signal.connect(listen, sender=ChatSession)
    try:
        over(session)
        assert purging.purge().count == 1
    finally:
        signal.disconnect(listen, sender=ChatSession)
    assert heard == [session.uuid]


@pytest.mark.parametrize("signal", [pre_delete, post_delete])
def test_who_listens_and_raises_keeps_what_is_above_it_and_nothing_else(tree, alice, signal):
    lone = make_session(alice, agent="silent")

    def refuse(sender: Any, instance: ChatSession, **kwargs: Any) -> None:
        if instance.uuid == tree[1].uuid:
            raise ValueError

    over(*tree, days=9)
    over(lone)
    signal.connect(refuse, sender=ChatSession)
    try:
        assert purging.purge().count == 4
        assert there([*tree, lone]) == [0, 1]
        assert purging.purge().is_finished
    finally:
        signal.disconnect(refuse, sender=ChatSession)
    assert purging.purge().count == 2


def test_nobody_who_listens_costs_django_nothing(session):
    assert not logs._is_referred_to()


def test_within_a_transaction_of_somebody_elses_nothing_is_decided_for_them(session, transactional_db):
    over(session)
    with transaction.atomic():
        assert purging.purge().count == 1
        transaction.set_rollback(True)
    assert there([session]) == [0]
    assert fresh(session).events.count() == 2
