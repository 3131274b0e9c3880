"""A real Prometheus watches the server and a Flask application that it deployed: discovery, alert rules, the dashboard's queries, and the judge."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.site import HAPROXY, Site

from trunkline.delivery import monitoring

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (PROMETHEUS and HAPROXY), reason="no Prometheus or HAProxy: apt install prometheus haproxy"),
]

FLASK = """
import random
from flask import Flask, request
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

LOSS = {loss}
app = Flask(__name__)
ANSWERS = Counter("shop_answers", "Answers.", ["route", "status"])
SECONDS = Histogram("shop_seconds", "How long answers took.", ["route"])


@app.get("/")
def index():
    with SECONDS.labels("/").time():
        ANSWERS.labels("/", "lost" if random.random() < LOSS else "kept").inc()
        return "hello"


@app.get("/health")
def health():
    return "ok"


@app.get("/metrics")
def metrics():
    return generate_latest(), 200, {{"Content-Type": CONTENT_TYPE_LATEST}}
"""


class Prometheus:
    """A real one, on a port of its own."""

    def __init__(self, folder: Path, server: str) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "trunkline", "monitoring", str(folder), "--server", server], capture_output=True, text=True, check=True
        )
        assert "alerts.yml" in ran.stdout
        config = folder / "prometheus" / "prometheus.yml"
        config.write_text(config.read_text().replace("15s", "1s").replace("10s", "1s").replace(": 5s", ": 1s"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert PROMETHEUS is not None
        self.process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={self.url[7:]}",
                "--log.level=warn",
            ],
            stderr=subprocess.DEVNULL,
        )

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return what a query gives now."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
        return found

    def until(self, query: str, seconds: float = 40) -> list[dict[str, Any]]:
        """Wait until a query gives something."""
        for _ in range(int(seconds / 0.25)):
            try:
                if found := self.ask(query):
                    return found
            except OSError:
                pass
            time.sleep(0.25)
        raise AssertionError(f"nothing for {query}")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def prometheus(site: Site, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that watches the site's server."""
    made = Prometheus(tmp_path / "monitoring", site.server.url)
    try:
        yield made
    finally:
        made.stop()


def _declare(site: Site, url: str, **strategy: Any) -> None:
    count = 'sum(increase(shop_answers_total{release="$RELEASE"}[$WINDOW]))'
    bad = count.replace("}", ',status="lost"}')
    lost = {"name": "lost", "source": "prometheus", "url": url, "interval": "3s", "requests": count, "bad": bad}
    site.declare(
        command="waitress-serve --listen=127.0.0.1:$PORT app:app", install=["pip install flask prometheus-client waitress"], metrics="/metrics",
        health={"path": "/health", "deadline": "30s"}, strategy=strategy, analysis={"metrics": [lost], "margin": 0.05},
    )  # fmt: skip


def test_prometheus_finds_what_is_deployed_and_the_judge_listens_to_it(site: Site, prometheus: Prometheus) -> None:
    site.visit()
    _declare(site, prometheus.url, kind="blue_green", pause="0s", analysis=False)
    (site.folder / "app.py").write_text(FLASK.format(loss=0.02))
    site.version_as_it_is("Flask")
    assert site.until(site.ask("deploy"), "promoted", "rolled_back", seconds=180)["status"] == "promoted"
    (up,) = prometheus.until('up{job="deployed",release="2"} == 1')
    assert (up["metric"]["project"], up["metric"]["environment"]) == ("team/project", "production")
    assert prometheus.until('sum(rate(shop_answers_total{release="2"}[5s])) > 1')

    _declare(site, prometheus.url, kind="canary", steps=[50], pause="60s")
    (site.folder / "app.py").write_text(FLASK.format(loss=0.5))
    site.version_as_it_is("Loses half")
    bad = site.until(site.ask("deploy"), "promoted", "rolled_back", "paused", seconds=180)

    assert bad["status"] == "rolled_back", bad
    assert "count as 'lost'" in bad["explanation"]["what"]
    assert prometheus.until('ALERTS{alertname="RolloutTakenBack",alertstate="firing",reason="verdict"}')
    for title, _, _, targets in monitoring.queries():
        for query, _ in targets:
            asked = query.replace("$project", ".*").replace("$environment", ".*")
            found = prometheus.ask(asked)
            assert found or title in ("Evidence of harm",), f"{title}: {asked}"


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    for path, text in monitoring.files("http://127.0.0.1:8910").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert PROMTOOL is not None

    for what in (["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]):
        ran = subprocess.run([PROMTOOL, *what], cwd=tmp_path / "prometheus", capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
