"""Releases as containers: built of a Dockerfile or named, behind a router, with the strategies that processes have."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.conftest import Server
from tests.e2e.engine import INSIDE
from tests.e2e.site import HAPROXY, Site

from trunkline.adapters.containers.docker import Docker

pytestmark = [pytest.mark.real, pytest.mark.skipif(not HAPROXY, reason="there is no haproxy on this machine: apt install haproxy")]

APP = """
import http.server, os
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ("{title} " + os.environ["TRUNKLINE_RELEASE"]).encode()
        self.send_response(500 if {bad} and self.path != "/health" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8744), Handler).serve_forever()
"""


class Containers(Site):
    """A project whose releases are containers."""

    def version(self, title: str, bad: str = "False", before: str = "", port: str = "") -> None:
        (self.folder / "app.py").write_text(APP.format(title=title, bad=bad, before=before))
        self.version_as_it_is(title)

    def declare(self, **more: Any) -> None:
        spec = {
            "target": "docker", "container_port": 8744, "port": self.port, "health": {"path": "/health", "deadline": "15s", "passes": 2},
            "stop_timeout": "2s", "drain": "1s", "strategy": {"kind": "canary", "steps": [20, 50], "pause": "30s"},
            "analysis": {"judge": "e1", "margin": 0.05}, **more,
        }  # fmt: skip
        (self.folder / "delivery.yml").write_text(json.dumps({"environments": {"production": spec}}))


@pytest.fixture
def shop(tmp_path: Path, docker: str, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Containers]:
    monkeypatch.setenv("DOCKER_HOST", docker)
    monkeypatch.setenv("TRUNKLINE_DOCKER_ADDRESS", INSIDE)
    server = Server(tmp_path / "data")
    server.start()
    made = Containers(server, tmp_path / "shop")
    (made.folder / "Dockerfile").write_text(f'FROM {images["python"]}\nCOPY app.py /app.py\nCMD ["python", "-u", "/app.py"]\n')
    engine = Docker(docker)
    try:
        yield made
    finally:
        made.remove()
        left = engine.labelled("trunkline.owner")
        engine.remove(*(c for c, _ in left.containers))
        engine.close()


def test_a_canary_of_containers_a_bad_one_taken_back_and_a_rollback(shop: Containers, docker: str) -> None:
    shop.declare()
    assert shop.deployed("One")["status"] == "promoted", shop.environment()
    assert shop.get() == "One 1"
    shop.visit()

    bad = shop.deployed("Bad", bad="True")
    assert bad["status"] == "rolled_back"
    assert re.search(r"(\d+) of \1 requests failed|all \d+ requests to the new release failed", bad["explanation"]["what"]), bad

    crashing = shop.deployed("Crashing", before="import sys; print('dying words'); sys.exit(3)")
    assert crashing["status"] == "rolled_back"
    assert "last exit status 3" in crashing["explanation"]["what"]

    shop.declare(strategy={"kind": "blue_green"})
    good = shop.deployed("Two")
    assert good["status"] == "promoted", good
    assert shop.get().startswith("Two")
    back = shop.until(shop.ask("rollback"), "promoted")
    assert back["status"] == "promoted"
    assert shop.get() == "One 1"
    shop.leave()
    assert {n for n in shop.answers if not n.startswith(("200", "500"))} == set(), shop.answers


def test_containers_outlive_the_server_and_one_that_is_killed_comes_back(shop: Containers, docker: str) -> None:
    shop.declare(
        strategy={"kind": "recreate"},
        instances=2,
        hooks={"before": "echo $GREETING > /dev/stderr; test -f /app.py"},
        variables={"GREETING": "hello"},
    )
    assert shop.deployed("One")["status"] == "promoted", shop.environment()
    assert shop.server.process is not None
    shop.server.stop(signal.SIGKILL)
    assert shop.get() == "One 1"
    engine = Docker(docker)
    containers = [c for c, found in engine.labelled("trunkline.release=1").containers]
    assert len(containers) == 2
    engine.remove(containers[0])
    shop.server.start()

    for _ in range(200):
        if len(engine.labelled("trunkline.release=1").containers) == 2:
            break
        time.sleep(0.1)
    assert len(engine.labelled("trunkline.release=1").containers) == 2
    engine.close()
    (shop.folder / "app.py").write_text("nothing that serves\n")
    git(shop.folder, "rm", "--quiet", "-f", "Dockerfile")
    shop.version_as_it_is("Without a Dockerfile")
    failed = shop.until(shop.ask("deploy"), "rolled_back", "aborted", "promoted")
    assert failed["status"] == "rolled_back"
    assert "no Dockerfile" in failed["explanation"]["what"]
    assert shop.get() == "One 1"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"install": "pip install x"}, "`install` does not go with target docker"),
        ({"target": "process", "command": "x"}, "`container_port` does not go with target process"),
        ({"container_port": None}, "container_port"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    from trunkline.delivery import spec

    told = {"target": "docker", "container_port": 8744, "port": 8080, **more}
    found, mistakes = spec.read(json.dumps({"environments": {"production": {n: v for n, v in told.items() if v is not None}}}))

    assert found == ()
    assert said in str(mistakes)


def test_the_engine_of_another_machine_is_reached_over_tls(tmp_path: Path, docker: str, docker_keys: Path, images: dict[str, str]) -> None:
    server = Server(tmp_path / "data")
    far = {"TRUNKLINE_DOCKER_HOST": f"tcp://{INSIDE}:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(docker_keys)}
    server.environ = far
    server.start()
    shop = Containers(server, tmp_path / "shop")
    (shop.folder / "Dockerfile").write_text(f'FROM {images["python"]}\nCOPY app.py /app.py\nCMD ["python", "-u", "/app.py"]\n')
    try:
        shop.declare(strategy={"kind": "rolling", "pause": "1s", "analysis": False}, instances=2)
        assert shop.deployed("One")["status"] == "promoted", shop.environment()
        assert shop.get() == "One 1"
        assert json.dumps(shop.environment()["instances"]).count(f'"{INSIDE}:') == 2
        server.stop()
        server.environ = {**far, "DOCKER_TLS_VERIFY": "0"}
        server.start()
        shop.version("Two")
        waiting = shop.ask("deploy")
        for _ in range(100):
            if shop.environment()["problem"]:
                break
            time.sleep(0.1)
        assert "the engine speaks TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH" in shop.environment()["problem"]
        server.stop()
        server.environ = far
        server.start()
        assert shop.until(waiting, "promoted")["status"] == "promoted"
        assert shop.get() == "Two 2"
    finally:
        shop.remove()
        engine = Docker(docker)
        engine.remove(*(c for c, _ in engine.labelled("trunkline.owner").containers))
        engine.close()
