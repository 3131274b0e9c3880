"""`trunkline terminal`: your terminal in a job that runs on a machine of the fleet, by way of the server."""

import argparse
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from trunkline.cli.remote import Remote, add_server_options
from trunkline.model.errors import OutsideError, Refused

PROTOCOL = "terminal.gitlab.com"
REFUSED, OUTSIDE = 4403, 4502  # the server's close codes (server/terminal.py)
LEAVE = 0x1D  # Ctrl-]


def parser() -> argparse.ArgumentParser:
    """Return the options of `trunkline terminal`."""
    p = argparse.ArgumentParser(
        prog="trunkline terminal",
        description="Open a terminal in a job that runs. The job's runner must have a session server ([session_server] in gitlab-runner's config.toml); "
        "the server stands between, so that only it must be reached. Ctrl-] leaves; the job goes on.",
        epilog="Exit status: 0 left, or the job has ended, 3 the server or the runner can't be reached, 4 refused.",
    )
    p.add_argument("job", type=int, help="the job's number: the last part of its page's address, /jobs/N")
    add_server_options(p)
    return p


def main(arguments: list[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    options.project = options.project or "-"
    remote = Remote(options)
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    url = f"{remote.server.replace('http', 'ws', 1)}/jobs/{options.job}/terminal"
    headers = {"Authorization": f"Bearer {remote.token}"} if remote.token else {}
    try:
        far = connect(url, additional_headers=headers, subprotocols=[Subprotocol(PROTOCOL)], max_size=1 << 20)
    except InvalidStatus as answer:
        raise OutsideError(f"{remote.server} answered {answer.response.status_code}", "is it a Trunkline server?") from None
    except (OSError, WebSocketException) as problem:
        raise OutsideError(f"{remote.server} can't be reached: {problem}", "is the server running?") from None
    with far:
        leaving, ended = os.pipe()

        def print_all() -> None:
            try:
                for piece in far:
                    data = piece if isinstance(piece, bytes) else piece.encode()
                    while data:
                        data = data[os.write(1, data) :]
            except (ConnectionClosed, OSError):
                pass
            os.write(ended, b"x")

        printing = threading.Thread(target=print_all, daemon=True)
        with _raw():
            printing.start()
            try:
                for typed in _typed(leaving):
                    far.send(typed)
            except ConnectionClosed:
                pass
        far.close()
        printing.join(2)
    code, said = far.protocol.close_code, far.protocol.close_reason or ""
    if code == REFUSED:
        raise Refused(said, "an API token in TRUNKLINE_TOKEN, or --token")
    if code == OUTSIDE:
        raise OutsideError(said)
    print(f"\r\n{said or 'left'}", file=sys.stderr)
    return 0


def _typed(leaving: int) -> Iterator[bytes]:
    """Yield what is typed until the other side ends, the input does, or somebody types Ctrl-]."""
    while True:
        ready, _, _ = select.select([0, leaving], [], [])
        if leaving in ready:
            return
        typed = os.read(0, 4096)
        if LEAVE in typed and os.isatty(0):
            return
        if typed:
            yield typed
        else:  # a script's input is at its end: what the job still says is waited for
            select.select([leaving], [], [])
            return


@contextmanager
def _raw() -> Iterator[None]:
    """Hand each key on as it is typed, ^C too, where there is a keyboard."""
    if not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the terminal is given back
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
