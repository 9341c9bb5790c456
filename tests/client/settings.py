"""The example's settings, but the server gives its answers itself and soon lets go of a stream."""

from tests.browser.settings import *  # noqa: F403
from tests.browser.settings import CHAT_SESSIONS as OF_THE_EXAMPLE

CHAT_SESSIONS = {**OF_THE_EXAMPLE, "RUNNER": "server", "STREAM_SECONDS": 3}
