"""The wire between a browser and its server, to be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

RESET = struct.pack("ii", 1, 0)
HOST = "127.0.0.1"


class Proxy:
    """A TCP proxy. What is cut is reset, as by a router that was switched off; never closed as by a server.

    Attributes:
        url: what a browser is given instead of the server's.
        cuts: how many connections were cut within a frame.
    """

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self._server = (HOST, port)
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._patterns: list[bytes] = []
        self._is_down = False
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut every connection."""
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            _reset(connection)

    def cut_within(self, text: str, *, times: int = 1) -> None:
        """Cut the next connections over which the server sends this text, in the middle of it."""
        with self._lock:
            self._patterns += [text.encode()] * times

    def go_down(self) -> None:
        """Cut every connection, and each new one."""
        self._is_down = True
        self.cut()

    def come_up(self) -> None:
        self._is_down = False

    def close(self) -> None:
        self.go_down()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                self._connect(browser)

    def _connect(self, browser: socket.socket) -> None:
        try:
            if self._is_down:
                raise ConnectionRefusedError
            server = socket.create_connection(self._server)
        except OSError:
            _reset(browser)
            return
        with self._lock:
            self._open |= {browser, server}
        for source, sink, is_answer in ((browser, server, False), (server, browser, True)):
            threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                part, is_cut = self._look(data) if is_answer else (data, False)
                sink.sendall(part)
                if is_cut:
                    for connection in (source, sink):
                        _reset(connection)
                    break
            else:
                sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.discard(source)

    def _look(self, data: bytes) -> tuple[bytes, bool]:
        """Return how much of it goes through, and whether the connection is cut then."""
        with self._lock:
            for pattern in self._patterns:
                at = data.find(pattern)
                if at >= 0:
                    self._patterns.remove(pattern)
                    self.cuts += 1
                    return data[: at + len(pattern) // 2], True
        return data, False


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
    connection.close()
