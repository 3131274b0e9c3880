"""Releases as Compose projects: each takes the place of the one before, what it keeps in volumes stays."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.conftest import Server
from tests.e2e.engine import INSIDE
from tests.e2e.site import HAPROXY, Site

from trunkline.adapters.containers.docker import Docker
from trunkline.kit import processes

HAS_COMPOSE = bool(shutil.which("docker-compose")) or processes.output(["docker", "compose", "version"])[0] == 0
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not HAPROXY, reason="there is no haproxy on this machine: apt install haproxy"),
    pytest.mark.skipif(not HAS_COMPOSE, reason="there is no Docker Compose on this machine: apt install docker-compose"),
]

SERVE = """
import http.server, os, sys, urllib.request
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = {body}
        self.send_response({status})
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8744), Handler).serve_forever()
"""
STORE = SERVE.format(before="", body='open("/data/n", "a+").write("x") and open("/data/n", "rb").read()', status=200)
COMPOSE = """
version: "3.8"
services:
  web:
    build: .
    environment: {{TITLE: "${{TITLE}}"}}
    depends_on: [store]
  store:
    image: {python}
    command: ["python", "-c", {store}]
    volumes: ["kept:/data"]
volumes: {{kept: {{}}}}
"""


class Project(Site):
    """A project with two services."""

    def version(self, title: str, bad: str = "False", before: str = "", port: str = "") -> None:
        body = f'("{title} " + os.environ["TRUNKLINE_RELEASE"] + " " + os.environ["TITLE"] + " " + urllib.request.urlopen("http://store:8744").read().decode()).encode()'
        body += ' if self.path != "/health" else b"fine"'
        (self.folder / "app.py").write_text(SERVE.format(before=before, body=body, status=f"500 if {bad} else 200"))
        self.version_as_it_is(title)

    def declare(self, **more: Any) -> None:
        spec = {
            "target": "compose", "service": "web", "container_port": 8744, "port": self.port, "health": {"path": "/health", "deadline": "20s", "passes": 2},
            "stop_timeout": "2s", "drain": "1s", "variables": {"TITLE": "hello"}, **more,
        }  # fmt: skip
        (self.folder / "delivery.yml").write_text(json.dumps({"environments": {"production": spec}}))


@pytest.fixture
def shop(tmp_path: Path, docker: str, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("DOCKER_HOST", docker)
    monkeypatch.setenv("TRUNKLINE_DOCKER_ADDRESS", INSIDE)
    server = Server(tmp_path / "data")
    server.start()
    made = Project(server, tmp_path / "shop")
    (made.folder / "Dockerfile").write_text(f'FROM {images["python"]}\nCOPY app.py /app.py\nCMD ["python", "-u", "/app.py"]\n')
    (made.folder / "compose.yml").write_text(COMPOSE.format(python=images["python"], store=json.dumps(STORE.replace("$", "$$"))))
    engine = Docker(docker)
    try:
        yield made
    finally:
        made.remove()
        left = engine.labelled("com.docker.compose.project")
        engine.remove(*(c for c, _ in left.containers))
        engine.remove_networks(*(n for n, _ in left.networks))
        engine.remove_volumes(*(v for v, _ in left.volumes))
        engine.close()


def containers(engine: Docker, service: str) -> list[str]:
    return [c for c, found in engine.labelled("com.docker.compose.project").containers if found["com.docker.compose.service"] == service]


def test_releases_replace_one_another_and_what_they_keep_stays(shop: Project, docker: str) -> None:
    engine = Docker(docker)
    shop.declare(
        hooks={
            "before": "test -f /app.py && python -c 'import urllib.request as u; u.urlopen(\"http://store:8744\")' && echo migrated $TITLE"
        }
    )
    first = shop.deployed("One")
    assert first["status"] == "promoted", (first, shop.environment())
    assert shop.get() == "One 1 hello xx"  # the hook was there before
    store = containers(engine, "store")

    assert shop.deployed("Two")["status"] == "promoted"
    assert shop.get() == "Two 2 hello xxxx"
    assert containers(engine, "store") == store, "a service that has not changed runs on"
    assert len(containers(engine, "web")) == 1

    crashing = shop.deployed("Crashing", before="print('dying words'); sys.exit(3)")
    assert crashing["status"] == "rolled_back"
    assert "exit status 3" in crashing["explanation"]["what"], crashing
    assert any("dying words" in line for line in crashing["explanation"]["log"]), crashing
    for _ in range(300):
        if shop.get().startswith("Two 2"):
            break
        time.sleep(0.1)
    assert shop.get().startswith("Two 2 hello xxxxxx")

    back = shop.until(shop.ask("rollback"), "promoted")
    assert back["release"] == 1
    for _ in range(300):
        if shop.get().startswith("One 1"):
            break
        time.sleep(0.1)
    assert shop.get().startswith("One 1 hello")
    shop.server.stop()
    assert shop.get().startswith("One 1 hello"), "it outlives the server"
    shop.server.start()
    stopped = shop.ask("stop")
    assert stopped["status"] == "stopped"
    for _ in range(300):
        if not containers(engine, "web") + containers(engine, "store"):
            break
        time.sleep(0.1)
    assert containers(engine, "web") + containers(engine, "store") == []
    assert engine.labelled("com.docker.compose.project").volumes, "data stays"
    engine.close()


def test_what_is_wrong_with_a_project_is_told(shop: Project) -> None:
    shop.declare(service="wev")
    told = shop.deployed("One")
    assert told["status"] in ("aborted", "rolled_back")
    assert "no service named 'wev'" in told["explanation"]["what"]
    assert "web" in told["explanation"]["what"]

    shop.declare()
    (shop.folder / "compose.yml").write_text("services: {web: {image: 'localhost:1/nothing:here'}}\n")
    told = shop.deployed("Two")
    assert "the image of web can't be fetched" in told["explanation"]["what"], told

    (shop.folder / "compose.yml").write_text("services: {web: {biuld: .}}\n")
    told = shop.deployed("Three")
    assert "compose.yml can't be read" in told["explanation"]["what"], told
    assert "biuld" in told["explanation"]["what"], told

    (shop.folder / "compose.yml").unlink()
    told = shop.deployed("Four")
    assert "the revision has no compose.yaml and no compose.yml" in told["explanation"]["what"], told
