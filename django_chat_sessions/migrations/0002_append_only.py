"""The log's last line on PostgreSQL: what no code path of the app does, no SQL of anybody else's may do either."""

from typing import Any

from django.db import migrations

PROTECT = (
    """
    CREATE FUNCTION chat_sessions_protect_event() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF coalesce(current_setting('chat_sessions.erasing', true), '') = 'on' THEN
            IF (NEW.id, NEW.session_id, NEW.sequence, NEW.type, NEW.created_at)
                IS DISTINCT FROM (OLD.id, OLD.session_id, OLD.sequence, OLD.type, OLD.created_at) THEN
                RAISE EXCEPTION 'chat_sessions: the skeleton of an event is never changed'
                    USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN NEW;
        END IF;
        IF OLD.superseded_by IS NOT NULL OR (to_jsonb(NEW) - 'superseded_by') <> (to_jsonb(OLD) - 'superseded_by') THEN
            RAISE EXCEPTION 'chat_sessions: events are append-only' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER chat_sessions_no_update BEFORE UPDATE ON chat_sessions_sessionevent
        FOR EACH ROW EXECUTE FUNCTION chat_sessions_protect_event()
    """,
    """
    CREATE FUNCTION chat_sessions_protect_log() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM chat_sessions_chatsession WHERE id = OLD.session_id) THEN
            RAISE EXCEPTION 'chat_sessions: events go with their session or not at all'
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER chat_sessions_no_delete AFTER DELETE ON chat_sessions_sessionevent
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
        WHEN (coalesce(current_setting('chat_sessions.purging', true), '') <> 'on')
        EXECUTE FUNCTION chat_sessions_protect_log()
    """,
    """
    CREATE FUNCTION chat_sessions_protect_held() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'chat_sessions: the session is under legal hold' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER chat_sessions_no_delete_held BEFORE DELETE ON chat_sessions_chatsession
        FOR EACH ROW WHEN (OLD.is_held) EXECUTE FUNCTION chat_sessions_protect_held()
    """,
)

# What is written between the moment that Django looks for what goes with a session, or a run, and the moment that it
# goes, a chunk of an answer for example, goes with it all the same.
CASCADE = (
    """
    DO $$
    DECLARE found record;
    BEGIN
        FOR found IN
            SELECT conrelid::regclass AS child, conname, pg_get_constraintdef(oid) AS definition,
                CASE conrelid WHEN 'chat_sessions_archive'::regclass THEN 'SET NULL' ELSE 'CASCADE' END AS action
            FROM pg_constraint
            WHERE contype = 'f' AND confdeltype = 'a'
                AND conrelid IN ('chat_sessions_run'::regclass, 'chat_sessions_runchunk'::regclass,
                                 'chat_sessions_sessionevent'::regclass, 'chat_sessions_outboxentry'::regclass,
                                 'chat_sessions_archive'::regclass)
                AND confrelid IN ('chat_sessions_chatsession'::regclass, 'chat_sessions_run'::regclass)
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.child, found.conname);
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', found.child, found.conname,
                           replace(found.definition, ' DEFERRABLE', format(' ON DELETE %s DEFERRABLE', found.action)));
        END LOOP;
    END $$
    """,
)

RELEASE = (
    "DROP TRIGGER chat_sessions_no_delete_held ON chat_sessions_chatsession",
    "DROP TRIGGER chat_sessions_no_delete ON chat_sessions_sessionevent",
    "DROP TRIGGER chat_sessions_no_update ON chat_sessions_sessionevent",
    "DROP FUNCTION chat_sessions_protect_held()",
    "DROP FUNCTION chat_sessions_protect_log()",
    "DROP FUNCTION chat_sessions_protect_event()",
)


def _only_on_postgresql(statements: tuple[str, ...]) -> Any:
    def run(apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            for statement in statements:
                schema_editor.execute(statement, params=None)

    return run


class Migration(migrations.Migration):
    """Triggers on PostgreSQL."""

    dependencies = [("chat_sessions", "0001_initial")]

    operations = [
        migrations.RunPython(_only_on_postgresql(PROTECT), _only_on_postgresql(RELEASE)),
        migrations.RunPython(_only_on_postgresql(CASCADE), migrations.RunPython.noop),
    ]
