"""The same, with a broker of the test's choice, and sweeps that are worth doing when they come late."""

import os

from tests.celery.host import *  # noqa: F403
from tests.celery.host import CELERY_BEAT_SCHEDULE
from tests.faults import processes

__all__ = ["processes"]

for entry in CELERY_BEAT_SCHEDULE.values():
    entry["options"]["expires"] = float(os.environ.get("TEST_EXPIRES", "60"))
