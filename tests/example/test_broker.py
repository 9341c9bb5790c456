"""The demo's broker, used by as many processes as it has: nobody is handed half a message, and none is lost."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

kombu = pytest.importorskip("kombu")

#: What one process sends: large enough that writing it takes a moment.
SENT = 150
SENDERS = 3

CONNECT = """
import sys, time
from kombu import Connection, Exchange, Queue
folder = sys.argv[1]
connection = Connection(
    "filesystem://localhost",
    transport="example_project.broker:Transport",
    transport_options={
        "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "-control",
        "polling_interval": 0.001,
    },
)
queue = Queue("messages", Exchange("messages", type="direct"), routing_key="messages")
"""

SEND = f"""
producer = connection.Producer()
for number in range({SENT}):
    body = {{"sender": sys.argv[2], "number": number, "text": "x" * 20_000}}
    producer.publish(body, exchange=queue.exchange, routing_key="messages", declare=[queue], retry=False)
    producer = connection.clone().Producer() if number % 10 == 0 else producer
"""

TAKE = """
from queue import Empty
taken = connection.channel()
queue(taken).declare()
print("ready", flush=True)
while True:
    try:
        message = taken.basic_get("messages", no_ack=True)
    except Empty:
        message = None
    if message is None:
        time.sleep(0.0005)
        continue
    print(message.payload["sender"], message.payload["number"], flush=True)
"""


def run(script: str, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT + script, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )


def test_no_process_is_handed_half_a_message_and_none_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "messages"
    folder.mkdir()
    takers = [run(TAKE, folder) for _ in range(2)]
    senders = [run(SEND, folder, str(number)) for number in range(SENDERS)]
    try:
        assert [sender.wait(60) for sender in senders] == [0] * SENDERS
        until = time.monotonic() + 30
        while any(folder.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(folder.iterdir())
        time.sleep(0.2)
        assert [taker.poll() for taker in takers] == [None, None]
    finally:
        for process in [*senders, *takers]:
            process.terminate()
        said = [process.communicate()[0].splitlines() for process in takers]
    taken = [line for lines in said for line in lines if line != "ready"]
    assert sorted(taken) == sorted(f"{sender} {number}" for sender in range(SENDERS) for number in range(SENT))
