"""Hands on connections: what comes to a listening socket goes to a port of this machine's loopback, byte for byte."""

import socket
import threading
from contextlib import suppress

CHUNK = 1 << 16
MOST = 64  # connections at a time of one socket; more wait until one ends


class Relay:
    """One listening socket. A thread takes connections; each has two more, one for each way."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self.listener, self.port = listener, port
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self.free = threading.Semaphore(MOST)
        threading.Thread(target=self._take, name=f"relay-{port}", daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        with self.lock, suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that takes
        self.listener.close()
        with self.lock:
            for one in self.open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _take(self) -> None:
        while True:
            self.free.acquire()
            try:
                near, _ = self.listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._connect, args=(near,), name=f"relay-{self.port}", daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            self._hand_on(near)
        finally:
            self.free.release()

    def _hand_on(self, near: socket.socket) -> None:
        with near:
            far = None
            for host in ("127.0.0.1", "::1"):
                with suppress(OSError):
                    far = socket.create_connection((host, self.port))
                    break
            if far is None:
                return
            with far:
                with self.lock:
                    self.open |= {near, far}
                back = threading.Thread(target=_copy, args=(far, near), daemon=True)
                back.start()
                _copy(near, far)
                back.join()
                with self.lock:
                    self.open -= {near, far}


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Hand on all that comes, and then that no more will."""
    with suppress(OSError):
        while piece := source.recv(CHUNK):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
