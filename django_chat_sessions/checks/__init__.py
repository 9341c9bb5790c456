"""System checks. Each says what to do.

| id | what is wrong |
|---|---|
| ``chat_sessions.E001`` | ``CHAT_SESSIONS`` is not a dict |
| ``chat_sessions.E002`` | a key that does not exist |
| ``chat_sessions.E003`` | a value that is impossible |
| ``chat_sessions.E004`` | the global timeouts, or their bounds, contradict each other |
| ``chat_sessions.E005`` | ``CAPTURE``, ``TOKEN_COUNTER`` or ``SUMMARIZE`` cannot be imported or called |
| ``chat_sessions.E006`` | the default agent is not registered |
| ``chat_sessions.E007`` | an agent is registered with something impossible |
| ``chat_sessions.E008`` | an agent's timeouts are out of bounds |
| ``chat_sessions.E009`` | ``USE_TZ`` is off |
| ``chat_sessions.E010`` | the middleware stands before ``AuthenticationMiddleware`` |
| ``chat_sessions.E011`` | the SQLite library is too old |
| ``chat_sessions.E012`` | ``RUNNER`` is Celery, which is not installed |
| ``chat_sessions.E013`` | ``ARCHIVE_STORAGE`` is not in ``STORAGES`` |
| ``chat_sessions.E014`` | a subscriber cannot be imported or called |
| ``chat_sessions.E015`` | the webhook has no secret, an impossible or too short one, or an impossible address |
| ``chat_sessions.W001`` | the middleware is not installed |
| ``chat_sessions.W002`` | the middleware is there without ``AuthenticationMiddleware`` |
| ``chat_sessions.W003`` | ``TOUCH_INTERVAL`` is too long for the shortest timeout |
| ``chat_sessions.W004`` | Celery is there, and nothing schedules the tasks |
| ``chat_sessions.W005`` | django-celery-beat is there, without our entries (``check --database``) |
| ``chat_sessions.W006`` | SQLite without IMMEDIATE transactions |
| ``chat_sessions.W007`` | SQLite without WAL |
| ``chat_sessions.W008`` | PostgreSQL with a connection for each request (``check --deploy``) |
| ``chat_sessions.W009`` | PostgreSQL without prepared statements (``check --deploy``) |
| ``chat_sessions.W010`` | ``STALE_AFTER`` is less than three heartbeats |
| ``chat_sessions.W011`` | the listener that the settings ask for can't be had |
| ``chat_sessions.W012`` | ``ASGI_APPLICATION`` is not set (``check --deploy``) |
| ``chat_sessions.W013`` | ``ARCHIVE_STORAGE`` is a storage whose files the web server gives to anybody |
| ``chat_sessions.W014`` | the webhook's address is not encrypted |

They run with all checks of a command, or alone with ``manage.py check --tag chat_sessions``.
"""

from . import agents, answers, archives, configuration, databases, middleware, schedule, subscribers

__all__ = ["agents", "answers", "archives", "configuration", "databases", "middleware", "schedule", "subscribers"]
