"""Delivery on one host, with real processes, a real HAProxy and real traffic: forward, back, and through every accident."""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.site import HAPROXY, Site

from trunkline.adapters.deploy_targets.process import ProcessTarget

pytestmark = [pytest.mark.real, pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")]


def test_a_good_release_walks_to_all_traffic_and_a_bad_one_is_taken_back(site: Site) -> None:
    site.visit()
    good = site.deployed("Two")
    assert good["status"] == "promoted"

    bad = site.deployed("Three", bad='self.path != "/health" and random.random() < 0.4')

    assert bad["status"] == "rolled_back"
    told = bad["explanation"]
    assert "x worse" in told["what"] or "requests failed" in told["what"]
    assert told["action"] == "all traffic is back on release 2"
    assert told["hurt"] > 0
    assert any("Three" in commit for commit in told["commits"])
    assert any("it broke at /" in line for line in told["log"])
    time.sleep(0.5)
    before = site.answers["500 3"]
    time.sleep(1)
    site.leave()
    assert site.answers["500 3"] == before
    assert {a for a in site.answers if not a.startswith("200 ")} == {"500 3"}
    page = site.server.request("GET", "/team/project/environments")[1].decode()
    assert "all traffic is back on release 2" in page
    assert 'aria-label="Phases"' in page


def test_going_back_to_a_warm_release_takes_no_start(site: Site) -> None:
    site.visit()
    assert site.deployed("Two")["status"] == "promoted"

    back = site.ask("rollback")

    assert (back["status"], back["release"]) == ("promoted", 1)
    assert [p["kind"] for p in back["phases"]] == ["promote"]
    assert back["explanation"]["action"] == "it was still warm"
    assert 0 < back["explanation"]["took"] < 5
    assert "It was still warm; it took" in site.server.request("GET", "/team/project/environments")[1].decode()
    time.sleep(0.3)
    before = site.answers["200 2"]
    time.sleep(0.7)
    site.leave()
    assert site.answers["200 2"] == before
    assert set(site.answers) == {"200 1", "200 2"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"port": '__import__("random").randrange(31000, 32000)'}, "it listens on port 31"),
        ({"before": "time.sleep(600)"}, "nothing listens on port"),
        ({"bad": "True"}, "answered 500, expected 200"),
        ({"before": "sys.exit('no settings')"}, "it crashes again and again"),
    ],
)
def test_a_release_that_does_not_become_ready_never_gets_traffic_and_says_why(site: Site, how: dict[str, str], said: str) -> None:
    site.visit(2)
    if "crashes" in said:  # told by counting, not by waiting: a slow machine may take its time
        site.declare(health={"path": "/health", "deadline": "60s"})

    broken = site.deployed("Broken", **how)

    assert broken["status"] == "rolled_back"
    assert said in broken["explanation"]["what"]
    site.leave()
    assert set(site.answers) == {"200 1"}


def test_install_commands_that_fail_are_said_with_their_last_words(site: Site) -> None:
    site.declare(install=["echo preparing", "echo no such thing >&2; exit 7"])

    broken = site.deployed("Broken")

    assert broken["status"] == "rolled_back"
    assert "exit status 7: " in broken["explanation"]["what"]
    assert "no such thing" in broken["explanation"]["what"]


def test_a_server_killed_again_and_again_loses_no_request_and_no_rollout(site: Site) -> None:
    """TRUNKLINE_KILLS=100 for the long version; docs/explanation/delivery.md has what it found."""
    kills, dice = int(os.environ.get("TRUNKLINE_KILLS", "6")), random.Random(7)
    site.declare(strategy={"kind": "canary", "steps": [20, 40, 60, 80], "pause": "0.5s", "analysis": False})
    site.visit()
    site.version("Two")
    opened = [site.ask("deploy")]
    for _ in range(kills):
        time.sleep(dice.uniform(0.05, 1.2))
        site.server.stop(signal.SIGKILL)
        site.server.start()
        if site.environment()["rollouts"][0]["finished_at"]:
            opened.append(site.ask("deploy", release=1 + len(opened) % 2))

    site.until(opened[-1], "promoted")

    found = site.environment()["rollouts"]
    assert [r["id"] for r in found] == [r["id"] for r in reversed(opened)][:19] + [1][
        : max(0, 20 - len(opened))
    ]  # none was lost, none repeated
    assert {r["status"] for r in found} == {"promoted"}
    site.leave()
    assert set(site.answers) == {"200 1", "200 2"}
    print(f"{kills} kills, {len(opened)} rollouts, {site.answers.total()} requests")


def test_a_router_that_is_killed_comes_back_with_its_weights(site: Site) -> None:
    site.declare(strategy={"kind": "canary", "steps": [50], "pause": "0s", "analysis": False})
    site.version("Two")
    site.until(site.ask("deploy"), "promoted", "paused")
    pid = json.loads(next((site.server.data / "delivery").rglob("router/state.json")).read_text())["pid"]

    os.kill(pid, signal.SIGKILL)

    for _ in range(100):
        with contextlib.suppress(OSError):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", site.port, timeout=2)) as connection:
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"2"
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the router did not come back")


def test_people_pause_approve_and_abort(site: Site) -> None:
    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False, "approvals": 1})
    site.version("Two")
    rollout = site.ask("deploy")
    site.ask("pause")
    assert site.until(rollout, "paused")["held"].startswith("paused by")
    site.ask("resume")
    site.ask("approve")
    assert site.until(rollout, "promoted")["approved_by"]

    site.version("Three")
    rollout = site.ask("deploy")
    aborted = site.ask("abort")
    assert aborted["status"] == "aborted"
    assert aborted["explanation"]["took"] > 0, "what somebody asks for is timed too"
    assert site.environment()["weights"]["2"] == 100
    status, told, _ = site.server.request("POST", "/api/v1/projects/team/project/environments/production/promote", {})
    assert status == 400
    assert b"no rollout is under way" in told


def test_mistakes_in_delivery_yml_come_with_their_line(site: Site) -> None:
    (site.folder / "delivery.yml").write_text("environments:\n  production:\n    comand: x\n")
    site.version("Wrong")

    status, told, _ = site.server.request("POST", "/api/v1/projects/team/project/environments/production/deploy", {})

    assert status == 400
    assert b"delivery.yml:3:5" in told


def test_closed_gates_refuse_with_the_reason_and_a_way_back_stays_open(site: Site) -> None:
    at_once = {"kind": "blue_green", "pause": "0s", "analysis": False}
    site.declare(strategy=at_once)
    assert site.deployed("Two")["status"] == "promoted"
    (site.folder / ".gitlab-ci.yml").write_text("job: {script: ['false']}\n")
    site.declare(gates={"green": True})
    site.version("Red")
    site.server.until_ended(site.server.runs()[0]["id"])
    status, told, _ = site.server.request("POST", "/api/v1/projects/team/project/environments/production/deploy", {})
    assert status == 403
    assert b"takes only what is green" in told
    site.declare(gates={"freeze": ["00:00 - 23:59", "23:59 - 00:00"]})
    site.version("Frozen")

    status, told, _ = site.server.request("POST", "/api/v1/projects/team/project/environments/production/deploy", {})

    assert status == 403
    assert b"is frozen" in told
    assert site.ask("rollback")["status"] == "promoted"


def test_a_release_whose_health_goes_while_it_is_watched_is_taken_back(site: Site) -> None:
    site.visit(2)

    ill = site.deployed("Ill", before="START = time.time()", bad='self.path == "/health" and time.time() - START > 5')

    assert ill["status"] == "rolled_back"
    assert "it was healthy and is not any more: GET /health" in ill["explanation"]["what"]
    site.leave()
    assert set(site.answers) == {"200 1", "200 2"}


def test_a_newer_rollout_takes_the_place_of_one_that_is_under_way(site: Site) -> None:
    site.visit(2)
    site.declare(strategy={"kind": "canary", "steps": [20], "pause": "0s", "analysis": False, "approvals": 1})
    site.version("Two")
    first = site.ask("deploy")
    site.version("Three")

    second = site.ask("deploy")
    time.sleep(3)
    site.ask("approve")

    assert site.until(second, "promoted")["release"] == 3
    assert site.until(first, "superseded")
    assert site.environment()["weights"]["3"] == 100
    site.leave()
    assert set(site.answers) == {"200 1", "200 3"}


def test_the_commands_deploy_show_and_go_back_with_their_exit_statuses(site: Site) -> None:
    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False})
    git(site.folder, "remote", "add", "origin", f"{site.server.url}/team/project.git")

    def trunkline(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-m", "trunkline", *words], cwd=site.folder, capture_output=True, text=True, timeout=60)

    site.version("Two")
    good = trunkline("deploy", "production")
    assert (good.returncode, good.stderr) == (0, "")
    assert "release 2 has all traffic" in good.stdout
    assert "release 2 100 %" in trunkline("env").stdout
    site.version("Broken", before="sys.exit('no settings')")
    broken = trunkline("deploy", "production")
    assert broken.returncode == 1
    assert "all traffic is back on release 2" in broken.stdout
    assert "no settings" in broken.stdout
    back = trunkline("rollback", "production", "--json")
    assert (back.returncode, json.loads(back.stdout)["release"]) == (0, 1)
    site.declare(strategy={"kind": "canary", "steps": [20], "pause": "1s"})  # nobody comes: no evidence
    site.version("Four")
    assert trunkline("deploy", "production").returncode == 5
    assert trunkline("promote", "production").returncode == 0
    assert trunkline("deploy", "nowhere").returncode == 2
    assert trunkline("abort", "production").returncode == 2


def test_what_is_green_on_the_branch_is_deployed_by_itself_and_once(site: Site) -> None:
    site.declare(auto=True, branch="main", strategy={"kind": "blue_green", "pause": "0s", "analysis": False})
    site.version("Two")
    for _ in range(200):
        if site.environment()["release"] == 2:
            break
        time.sleep(0.1)
    assert site.environment()["release"] == 2

    run = site.server.runs()[0]
    job = site.server.get(f"/api/v1/runs/{run['id']}")["jobs"][0]["id"]
    site.server.request("POST", f"/api/v1/jobs/{job}/retry", {})
    site.server.until_ended(run["id"])
    time.sleep(1)

    assert len(site.environment()["rollouts"]) == 2  # green once more changes nothing
    site.server.push(site.folder, ref="elsewhere")
    (site.folder / ".gitlab-ci.yml").write_text("job: {script: ['false']}\n")
    site.version("Red")
    site.server.until_ended(site.server.runs()[0]["id"])
    time.sleep(1)
    assert len(site.environment()["rollouts"]) == 2


@pytest.mark.parametrize(
    ("strategy", "gapless"),
    [
        ({"kind": "rolling", "pause": "1s", "analysis": False}, True),
        ({"kind": "blue_green", "pause": "0s", "analysis": False}, True),
        ({"kind": "recreate"}, False),
    ],
)
def test_a_strategy_brings_two_instances_of_the_new_release(site: Site, strategy: dict[str, Any], gapless: bool) -> None:
    site.declare(instances=2, strategy=strategy, bake="1s")
    site.visit(2)

    done = site.deployed("Two")

    assert done["status"] == "promoted", done["explanation"]["what"] + str(done["explanation"]["log"])
    assert len(site.environment()["instances"]["2"]) == 2
    for _ in range(100):
        if set(site.environment()["instances"]) == {"2"}:
            break
        time.sleep(0.1)
    assert set(site.environment()["instances"]) == {"2"}  # the old release has baked out, or was stopped first
    metrics = site.server.request("GET", "/metrics")[1].decode()
    assert 'deploy_weight_ratio{environment="production",project="team/project",release="2"} 1.0' in metrics
    assert 'deploy_rollouts_total{environment="production",project="team/project",status="promoted"} 2.0' in metrics
    site.leave()
    if gapless:
        assert set(site.answers) == {"200 1", "200 2"}


def test_only_the_last_releases_are_kept(site: Site) -> None:
    target = ProcessTarget(str(site.server.data / "ports.json"))
    site.declare(strategy={"kind": "blue_green", "pause": "0s", "analysis": False}, bake="0s")
    for title in ("Two", "Three"):
        assert site.deployed(title)["status"] == "promoted"
    folder = next((site.server.data / "delivery").rglob("releases")).parent
    until_gone = time.time() + 20
    while list(target.running(str(folder))) != [3] and time.time() < until_gone:
        time.sleep(0.1)

    target.forget(str(folder), keep=1, wanted=[3])

    assert [p.name for p in (folder / "releases").iterdir()] == ["3"]
    assert os.readlink(folder / "current") == "releases/3"
    assert json.loads((folder / "releases/3/manifest.json").read_text())["release"] == 3
