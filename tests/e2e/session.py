"""A runner's session server as `gitlab-runner` has one, for tests: the Go program can't be had. It is strict about what the protocol says: path, method,
authorization, subprotocol, binary messages, one connection at a time. Behind it is a real shell on a real pseudo-terminal.
"""

import os
import pty
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.tls import certificates
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol


class SessionServer:
    """One job's."""

    def __init__(self, folder: Path) -> None:
        certificates(folder, "192.0.2.1")  # another name than the address: the certificate is pinned, not looked up
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
        self.certificate = (folder / "server.pem").read_text()
        self.authorization = "a-word-that-opens-it"
        self.busy = threading.Lock()
        self.refused: list[str] = []
        self.server: Server = serve(
            self._talk, "127.0.0.1", 0, ssl=context, process_request=self._check, subprotocols=[Subprotocol("terminal.gitlab.com")]
        )
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def told(self) -> dict[str, str]:
        """What the runner says of it when it asks for a job."""
        url = f"https://127.0.0.1:{self.port}/session/0123456789abcdef"
        return {"url": url, "certificate": self.certificate, "authorization": self.authorization}

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        wrong = (
            (404, request.path != "/session/0123456789abcdef/exec"),
            (401, request.headers.get("Authorization") != self.authorization),
            (400, "terminal.gitlab.com" not in request.headers.get("Sec-WebSocket-Protocol", "")),
            (423, self.busy.locked()),
        )
        status = next((status for status, is_wrong in wrong if is_wrong), 0)
        if status:
            self.refused.append(f"{status} {request.path}")
            return connection.respond(status, "refused\n")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        with self.busy:
            pid, terminal = pty.fork()
            if not pid:
                os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": "in the job$ ", "TERM": "xterm"})
            said = threading.Thread(target=self._say, args=(connection, terminal), daemon=True)
            said.start()
            try:
                for typed in connection:
                    assert isinstance(typed, bytes), "the protocol has binary messages only"
                    os.write(terminal, typed)
            except (OSError, ConnectionClosed):
                pass
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(terminal)

    def _say(self, connection: ServerConnection, terminal: int) -> None:
        try:
            while piece := os.read(terminal, 4096):
                connection.send(piece)
        except (OSError, ConnectionClosed):
            pass
        connection.close()

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.thread.join(5)


@contextmanager
def session_server(folder: Path) -> Iterator[SessionServer]:
    """Run one."""
    made = SessionServer(folder)
    try:
        yield made
    finally:
        made.close()
