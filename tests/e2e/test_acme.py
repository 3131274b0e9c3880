"""Certificates by ACME, from Pebble, the test authority of Let's Encrypt: Traefik proves the domain and serves by HTTPS."""

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from trunkline.adapters.traffic_routers.traefik import TraefikRouter
from trunkline.kit import supervisor
from trunkline.model.deliveries import Tls
from trunkline.ports.delivery import TrafficRouter
from trunkline.testing.contracts.router import backend, found

DOMAIN = "shop.example.com"
NEEDED = ("pebble", "pebble-challtestsrv", "openssl")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="no Pebble on this machine: apt install pebble openssl"),
]


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Authority:
    """A Pebble that looks for domains on this machine, and asks them at one port."""

    def __init__(self, folder: Path, challenge_port: int) -> None:
        key, self.certificate = folder / "key.pem", folder / "cert.pem"
        make = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ]
        subprocess.run([*make, "-keyout", key, "-out", self.certificate], check=True, capture_output=True)
        self.port, self.management, dns, admin = (_free() for _ in range(4))
        config = {
            "listenAddress": f"127.0.0.1:{self.port}", "managementListenAddress": f"127.0.0.1:{self.management}", "certificate": str(self.certificate),
            "privateKey": str(key), "httpPort": _free(), "tlsPort": challenge_port, "ocspResponderURL": "", "externalAccountBindingRequired": False,
        }  # fmt: skip
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
        names = [
            "pebble-challtestsrv",
            "-dns01",
            f"127.0.0.1:{dns}",
            "-management",
            f"127.0.0.1:{admin}",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]
        serve = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
        env = {"PATH": "/usr/bin:/bin", "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        self.processes = [subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for argv in (names, serve)]

    def root(self) -> str:
        """Return the certificate that signs the others."""
        trust = ssl.create_default_context(cafile=str(self.certificate))
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"https://localhost:{self.management}/roots/0", context=trust, timeout=5) as reply:
                    return str(reply.read().decode())
            except OSError:
                time.sleep(0.1)
        raise AssertionError("Pebble does not answer")

    def stop(self) -> None:
        """End it."""
        for process in self.processes:
            process.terminate()
            process.wait(10)


@pytest.fixture
def router() -> TrafficRouter:
    """Traefik, where there is one."""
    return found(TraefikRouter())


@pytest.fixture
def cleaned(tmp_path: Path) -> Iterator[ExitStack]:
    """What must be undone."""
    with ExitStack() as stack:
        stack.callback(supervisor.stop_below, str(tmp_path))
        yield stack


def test_a_certificate_comes_by_itself_and_people_come_in_by_https(
    router: TrafficRouter, tmp_path: Path, cleaned: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = _free()
    authority = Authority(tmp_path, port)
    cleaned.callback(authority.stop)
    trust = ssl.create_default_context(cadata=authority.root())
    monkeypatch.setenv("LEGO_CA_CERTIFICATES", str(authority.certificate))  # Pebble's own door is not Let's Encrypt's
    one = cleaned.enter_context(backend(1))
    folder = str(tmp_path / "environment")
    router.ensure(folder, port, Tls((DOMAIN,), "ops@example.com", f"https://localhost:{authority.port}/dir"))
    router.set_weights(folder, {1: (100, [one])})

    def visit() -> bytes:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection = http.client.HTTPConnection(DOMAIN, port)
        connection.sock = trust.wrap_socket(plain, server_hostname=DOMAIN)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read()
        finally:
            connection.close()

    for _ in range(150):
        try:
            answer = visit()
            break
        except ssl.SSLCertVerificationError:  # Traefik's own certificate, until the authority's has come
            time.sleep(0.2)
    assert answer == b"1"
    assert router.counters(folder)[1].requests >= 1
