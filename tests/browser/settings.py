"""The example's settings, and what a test would have otherwise."""

import json
import os

from example_project.settings import *  # noqa: F403
from example_project.settings import CHAT_SESSIONS as EXAMPLE

CHAT_SESSIONS = {**EXAMPLE, **json.loads(os.environ.get("TEST_CHAT_SESSIONS") or "{}")}

# Everybody's password is known, and a good hash takes half a second each time that somebody logs in.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
