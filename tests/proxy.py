"""A TCP proxy before PostgreSQL that cuts connections at the byte a test asks for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Cut = Callable[[bytes], bool]


class Proxy:
    """`cut_before(application, text)` and `cut_after(...)` arm one cut each.

    Before: what holds the text is not passed on. After: it is, and the answer is swallowed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._cuts: list[tuple[str, bytes, bool]] = []
        self._open: list[tuple[bytes, socket.socket, socket.socket]] = []
        self.cut: list[str] = []
        self.asked: list[bytes] = []  # by sessions of `listen_to`, one for a round trip
        self.listen_to = ""
        self.refusing = False
        self.silent = False  # the server does not hear of a cut, as when the network between fails
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_before(self, application: str, text: str) -> None:
        self._cuts.append((application, text.encode(), False))

    def cut_after(self, application: str, text: str) -> None:
        self._cuts.append((application, text.encode(), True))

    def cut_now(self, application: str) -> None:
        """Cut the open connections of this application."""
        for startup, client, server in list(self._open):
            if application.encode() in startup:
                self.cut.append(application)
                self._shut(client, server)

    def close(self) -> None:
        self._listening.close()
        self.silent = False
        for _, client, server in list(self._open):
            self._shut(client, server)

    def _shut(self, client: socket.socket, server: socket.socket) -> None:
        for each in (client,) if self.silent else (client, server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            if self.refusing:
                client.close()
                return
            server = socket.create_connection(self._server)
            startup = b""
            swallowing = threading.Event()

            def answers() -> None:
                with suppress(OSError):
                    while data := server.recv(65536):
                        if swallowing.is_set():
                            break
                        client.sendall(data)
                self._shut(client, server)

            threading.Thread(target=answers, daemon=True).start()
            while data := client.recv(65536):
                if len(startup) < 1000:
                    startup += data
                    self._open.append((startup, client, server))
                if self.listen_to and self.listen_to.encode() + b"\0" in startup:
                    self.asked.append(data)
                cut = self._armed(startup, data)
                if cut is not None:
                    if cut[2]:
                        swallowing.set()
                        server.sendall(data)
                        server.recv(0)
                        return
                    break
                server.sendall(data)
            self._shut(client, server)

    def _armed(self, startup: bytes, data: bytes) -> tuple[str, bytes, bool] | None:
        for cut in self._cuts:
            if cut[0].encode() + b"\0" in startup and cut[1] in data:
                self._cuts.remove(cut)
                self.cut.append(cut[0])
                return cut
        return None


@contextmanager
def before(host: str, port: int) -> Iterator[Proxy]:
    proxy = Proxy(host, port)
    try:
        yield proxy
    finally:
        proxy.close()
