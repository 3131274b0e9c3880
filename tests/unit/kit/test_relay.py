"""Connections that are handed on."""

import socket
import threading
from collections.abc import Iterator

import pytest

from trunkline.kit import relay


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a service that says what it hears, turned round, once it has heard all."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=_answer, args=(one,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def _answer(one: socket.socket) -> None:
    with one:
        heard = b""
        while piece := one.recv(4096):
            heard += piece
        one.sendall(heard[::-1])


def _told(one: socket.socket) -> bytes:
    found = b""
    while piece := one.recv(1 << 16):
        found += piece
    return found


def test_all_comes_back_and_one_connection_too_many_waits_for_its_turn(echo: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    address = listener.getsockname()
    served = relay.Relay(listener, echo)
    many = [socket.create_connection(address, 10) for _ in range(relay.MOST)]
    one_more = socket.create_connection(address, 10)
    one_more.sendall(b"abc" * 100_000)
    one_more.shutdown(socket.SHUT_WR)
    one_more.settimeout(0.3)
    with pytest.raises(TimeoutError):
        one_more.recv(1)

    many.pop().close()

    one_more.settimeout(10)
    assert _told(one_more) == b"cba" * 100_000
    served.close()
    for left in many:
        left.settimeout(10)
        assert left.recv(1) == b""
        left.close()
    one_more.close()
