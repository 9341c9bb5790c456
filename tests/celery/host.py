"""Settings of the processes that the tests start: the suite's, and a broker of the test's choice."""

import json
import os

from django_chat_sessions.schedule import beat_schedule
from tests.celery.queues import queue, transport
from tests.settings import *  # noqa: F403
from tests.settings import CHAT_SESSIONS

CHAT_SESSIONS = {**CHAT_SESSIONS, "SWEEP_BATCH": 5}

#: Names everything of one test at the broker.
NAME = os.environ["TEST_BROKER_NAME"]

CELERY_BROKER_URL = os.environ["TEST_BROKER_URL"]
CELERY_BROKER_TRANSPORT = transport(CELERY_BROKER_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = json.loads(os.environ["TEST_BROKER_OPTIONS"])
CELERY_TASK_DEFAULT_QUEUE = NAME
CELERY_TASK_QUEUES = [queue(NAME)]
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_IGNORE_RESULT = True
CELERY_BEAT_SCHEDULE = beat_schedule(seconds=1) if os.environ.get("TEST_BEAT_SCHEDULE") else {}
