"""Several servers on one PostgreSQL, behind HAProxy."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.conftest import free_ports
from tests.contracts.postgres import Postgres, a_postgres
from tests.e2e.conftest import Server

PROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 5
    option redispatch 1
    retry-on conn-failure empty-response
frontend people
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    option httpchk GET /health
    default-server check inter 200ms fall 1 rise 1
    balance roundrobin
"""


class Several:
    """Servers a, b, ... with one address for all."""

    def __init__(self, folder: Path, database: Postgres, port: int) -> None:
        self.folder, self.database = folder, database
        self.servers: dict[str, Server] = {}
        self.door = Server(folder / "nowhere")  # HAProxy's address, to be asked as a server is
        self.door.port, self.door.url = port, f"http://127.0.0.1:{port}"

    def add(self, name: str) -> Server:
        """Name a server; it is started by `start`."""
        (self.folder / name).mkdir(parents=True)
        made = self.servers[name] = Server(self.folder / name / "data")
        made.database = self.database.url
        return made

    def start(self, name: str, *options: str) -> Server:
        """Start a server of that name."""
        server = self.servers.get(name) or self.add(name)
        server.start("--shared", str(self.folder / "shared"), "--name", name, "--url", self.door.url, "--isolation", "none", *options)
        return server

    def log(self, name: str) -> str:
        """Return what a server has said."""
        return (self.folder / name / "server.log").read_text()


@contextmanager
def several(folder: Path, *names: str, behind_proxy: bool = False) -> Iterator[Several]:
    """Run servers of these names; their jobs run without isolation, so that tests see more of them in less time."""
    program = shutil.which("haproxy")
    if behind_proxy and program is None:
        pytest.skip("there is no haproxy on this machine: apt install haproxy")
    with ExitStack() as stack:
        made = Several(folder, stack.enter_context(a_postgres()), free_ports(1)[0])
        for name in names:
            made.add(name)
        if behind_proxy:
            lines = [f"    server {name} 127.0.0.1:{server.port}\n" for name, server in made.servers.items()]
            (folder / "haproxy.cfg").write_text(PROXY.format(port=made.door.port) + "".join(lines))
            proxy = subprocess.Popen([str(program), "-q", "-f", str(folder / "haproxy.cfg")])
            stack.callback(proxy.wait)
            stack.callback(proxy.kill)
        for name in names:
            made.start(name)
        stack.callback(_stop, made)
        if behind_proxy:
            for _ in range(100):
                if made.door.request("GET", "/health")[0] == 200:
                    break
                time.sleep(0.05)
        yield made


def _stop(made: Several) -> None:
    for server in made.servers.values():
        if server.process is not None and server.process.poll() is None:
            server.stop()
