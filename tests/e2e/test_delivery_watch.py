"""What is watched while a release goes out: answering times, an application's own metrics, cohorts, shares; and hooks around it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.e2e.site import HAPROXY, Site

pytestmark = [pytest.mark.real, pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")]

CANARY = {"kind": "canary", "steps": [30], "pause": "40s"}
METRICS = """
class Counted:
    orders = lost = 0
import threading
"""
COUNTS = """
        if self.path == "/metrics":
            text = f"orders_total{{state=\\"kept\\"}} {Counted.orders - Counted.lost}\\norders_total{{state=\\"lost\\"}} {Counted.lost}\\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            return
        Counted.orders += 1
        Counted.lost += random.random() < LOSS
"""


def test_a_release_that_is_only_slower_is_taken_back_by_its_answering_times(site: Site) -> None:
    site.declare(strategy=CANARY)
    site.visit()
    time.sleep(3)

    slow = site.deployed("Two", bad='self.path != "/health" and time.sleep(0.15)')

    assert slow["status"] == "rolled_back"
    assert "slower than" in slow["explanation"]["what"]
    assert slow["explanation"]["hurt"] == 0
    page = site.server.request("GET", "/team/project/environments")[1].decode()
    assert "95th percentile" in page
    assert "30 %" in page


def test_a_metric_of_the_application_itself_takes_a_release_back(site: Site) -> None:
    def version(title: str, loss: float) -> dict[str, Any]:
        site.version(title, before=METRICS + f"LOSS = {loss}")
        file = site.folder / "app.py"
        file.write_text(file.read_text().replace("        bad = False\n", COUNTS + "        bad = False\n"))
        site.version_as_it_is()
        return site.until(site.ask("deploy"), "promoted", "rolled_back", "aborted", "paused")

    lost = {"name": "lost orders", "requests": "orders_total", "bad": 'orders_total{state="lost"}'}
    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False})
    site.visit()
    assert version("Two", 0.01)["status"] == "promoted"
    site.declare(strategy=CANARY, analysis={"metrics": [lost], "margin": 0.05})

    bad = version("Three", 0.4)

    assert bad["status"] == "rolled_back"
    assert "count as 'lost orders'" in bad["explanation"]["what"]
    assert {a for a in site.answers if not a.startswith("200 ")} == set(), "no answer was bad: only the metric knew"


def test_a_metric_that_can_not_be_had_pauses_and_says_so(site: Site) -> None:
    nobody = {"name": "orders", "source": "prometheus", "url": "http://127.0.0.1:9", "requests": "a", "bad": "b", "interval": "1s"}
    site.declare(strategy={"kind": "canary", "steps": [30], "pause": "6s"}, analysis={"metrics": [nobody]})
    site.visit()

    held = site.deployed("Two")

    assert held["status"] == "paused"
    assert "least by 'orders'" in held["held"]
    assert "orders can't be had: Prometheus at http://127.0.0.1:9 can't be asked" in held["held"]
    assert site.until(site.ask("promote"), "promoted")["release"] == 2


class _Prometheus(BaseHTTPRequestHandler):
    """A stand-in that answers late, with NaN, or with too many values: what a real one can't be made to do. Checks how it is asked."""

    def do_GET(self) -> None:
        assert self.path.startswith("/api/v1/query_range?query=")
        assert "step=1.0" in self.path
        wrong = "release%3D2" in self.path or "release%3D%222" in self.path
        values = [[time.time(), "NaN" if wrong else "100"]]
        body = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_not_a_number_is_no_evidence(site: Site) -> None:
    prometheus = ThreadingHTTPServer(("127.0.0.1", 0), _Prometheus)
    threading.Thread(target=prometheus.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{prometheus.server_address[1]}"
        metric = {
            "name": "orders",
            "source": "prometheus",
            "url": url,
            "requests": "a{release=$RELEASE}",
            "bad": "b{release=$RELEASE}",
            "interval": "1s",
        }
        site.declare(strategy={"kind": "canary", "steps": [30], "pause": "6s"}, analysis={"metrics": [metric]})
        site.visit()

        assert "least by 'orders'" in site.deployed("Two")["held"]
    finally:
        prometheus.shutdown()
        prometheus.server_close()


def test_members_of_a_cohort_see_the_new_release_and_nobody_else_by_their_side(site: Site) -> None:
    site.declare(strategy={"kind": "canary", "steps": [1], "pause": "60s", "analysis": False, "header": "X-Beta", "value": "yes"})
    site.version("Two")
    rollout = site.ask("deploy")
    for _ in range(200):
        if site.environment()["weights"].get("2"):
            break
        time.sleep(0.1)

    time.sleep(0.5)
    assert {site.get(X_Beta="yes") for _ in range(10)} == {"2"}
    assert [site.get() for _ in range(40)].count("1") >= 38
    site.ask("promote")
    site.until(rollout, "promoted")
    assert site.get() == "2"


def test_a_cohort_that_gets_only_errors_is_enough_to_go_back(site: Site) -> None:
    site.declare(strategy={"kind": "canary", "steps": [1], "pause": "60s", "cookie": "beta", "value": "1"})
    site.version("Two", bad='"beta=1" in self.headers.get("Cookie", "")')
    rollout = site.ask("deploy")
    for _ in range(200):
        if site.environment()["weights"].get("2"):
            break
        time.sleep(0.1)
    time.sleep(1.5)
    for _ in range(12):
        site.get(Cookie="a=b; beta=1")

    back = site.until(rollout, "rolled_back", seconds=15)

    assert "requests of its cohort failed" in back["explanation"]["what"]
    assert back["explanation"]["hurt"] >= 10


def test_hooks_stand_around_a_release_and_a_failed_one_keeps_it_from_traffic(site: Site) -> None:
    told = site.folder.parent / "told"
    hooks = {
        "before": f'echo "before $TRUNKLINE_RELEASE" >> {told}',
        "smoke": f'echo "smoke $(python3 check.py)" >> {told}; grep -q "smoke [0-9]" {told}',
        "after": f'echo "after $TRUNKLINE_RELEASE in $TRUNKLINE_ENVIRONMENT" >> {told}',
        "failed": f'echo "failed $TRUNKLINE_RELEASE: $TRUNKLINE_REASON" >> {told}',
    }
    check = 'import os, urllib.request\nprint(urllib.request.urlopen(os.environ["TRUNKLINE_URL"]).read().decode())\n'
    (site.folder / "check.py").write_text(check)
    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False}, hooks=hooks)

    def lines(count: int) -> list[str]:
        for _ in range(100):
            if told.exists() and len(told.read_text().splitlines()) >= count:
                break
            time.sleep(0.1)
        return told.read_text().splitlines()

    assert site.deployed("Two")["status"] == "promoted"
    assert lines(3) == ["before 2", "smoke 2", "after 2 in production"]

    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False}, hooks={**hooks, "smoke": "echo no such page; exit 3"})
    site.visit(2)
    bad = site.deployed("Three")

    assert bad["status"] == "rolled_back"
    assert bad["explanation"]["what"].endswith(
        "the hook 'smoke' failed: `echo no such page; exit 3` ended with exit status 3: no such page"
    )
    assert lines(5)[4].startswith("failed 3: release 3 never got traffic")
    site.leave()
    assert set(site.answers) == {"200 2"}
