"""Where releases stand: instance by instance, beside one another, one for each branch, for a time; and what happens when one falls ill later."""

import json
import os
import signal
import time
import urllib.request
from typing import Any

import pytest
from tests.conftest import git
from tests.e2e.site import HAPROXY, Site

from trunkline.kit import supervisor

pytestmark = [pytest.mark.real, pytest.mark.skipif(not HAPROXY, reason="no HAProxy on this machine: apt install haproxy")]
AT_ONCE = {"kind": "blue_green", "pause": "0s", "analysis": False}


def _eventually(what: Any, seconds: float = 20.0) -> bool:
    for _ in range(int(seconds / 0.1)):
        if what():
            return True
        time.sleep(0.1)
    return False


def _running(site: Site, release: int, name: str = "production") -> int:
    top = site.server.data / "delivery" / "team" / "project" / name.replace("/", "%2F") / "releases" / str(release) / "run"
    return sum(supervisor.is_alive(str(run)) for run in top.iterdir()) if top.exists() else 0


def test_rolling_replaces_one_instance_after_the_other_without_a_gap(site: Site) -> None:
    site.declare(instances=3, strategy=AT_ONCE, bake="0s")
    assert site.deployed("Two")["status"] == "promoted"
    site.declare(instances=3, strategy={"kind": "rolling", "pause": "3s", "analysis": False})
    site.visit(3)
    site.version("Three")
    rollout = site.ask("deploy")

    seen = set()
    while site.environment()["rollouts"][0]["status"] == "running":
        seen.add((_running(site, 2), _running(site, 3)))
        time.sleep(0.05)

    assert site.until(rollout, "promoted")["release"] == 3
    assert max(old + new for old, new in seen) <= 4, "one more than there should be, at most"
    assert min(old + new for old, new in seen) >= 3, "never less than there were"
    assert {(2, 1), (1, 2)} <= seen
    assert _eventually(lambda: (_running(site, 2), _running(site, 3)) == (0, 3))
    site.leave()
    assert set(site.answers) == {"200 2", "200 3"}


def test_a_release_that_falls_ill_after_its_promotion_gives_way_to_the_one_that_is_warm(site: Site) -> None:
    site.declare(strategy={**AT_ONCE, "kind": "red_black"})
    site.visit(2)
    assert site.deployed("Two", bad='__import__("os").path.exists("ill") and True')["status"] == "promoted"

    (site.server.data / "delivery" / "team" / "project" / "production" / "releases" / "2" / "app" / "ill").touch()

    assert _eventually(lambda: site.environment()["release"] == 1)
    back = site.environment()["rollouts"][0]
    assert (back["release"], back["status"], back["by"]) == (1, "promoted", "")
    assert "release 2 fell ill after its promotion: it was healthy and is not any more: GET /health" in back["reason"]
    page = site.server.request("GET", "/team/project/environments")[1].decode()
    assert "Release 2 fell ill" in page


def test_a_release_beside_has_an_address_of_its_own_until_it_expires(site: Site) -> None:
    site.declare(strategy={"kind": "beside"}, expire="4s")

    beside = site.deployed("Two")

    assert beside["environment"] == "production/r2"
    with urllib.request.urlopen(f"http://127.0.0.1:{beside['port']}/", timeout=5) as reply:
        assert reply.read() == b"2"
    assert site.get() == "1"
    assert _eventually(lambda: site.environment("production/r2")["is_stopped"])
    assert _eventually(lambda: _running(site, 2, "production/r2") == 0)
    assert site.get() == "1"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{beside['port']}/", timeout=5)


def test_each_branch_has_a_review_environment_that_goes_with_it(site: Site) -> None:
    review = {"command": "exec python3 app.py", "auto": True, "expire": "1h", "health": {"path": "/health"}, "stop_timeout": "2s"}
    spec = json.loads((site.folder / "delivery.yml").read_text())
    spec["environments"]["review/*"] = review
    (site.folder / "delivery.yml").write_text(json.dumps(spec))
    site.version_as_it_is("Prices", "Better/Prices")

    def serving() -> dict[str, Any]:
        return site.environment("review/better-prices")

    assert _eventually(lambda: serving().get("release"), 60)
    with urllib.request.urlopen(f"http://127.0.0.1:{serving()['port']}/", timeout=5) as reply:
        assert reply.read().decode() == str(serving()["release"])
    assert serving()["expires_at"] - time.time() > 3000
    assert site.environment()["release"] == 1, "production is not a branch's business"

    git(site.folder, "push", "--quiet", f"{site.server.url}/team/project.git", "--delete", "Better/Prices")

    assert _eventually(lambda: serving()["is_stopped"])
    assert serving()["rollouts"][0]["reason"] == "the branch Better/Prices is gone"
    assert _eventually(lambda: _running(site, serving()["rollouts"][0]["release"], "review/better-prices") == 0)


def test_stop_empties_an_environment_and_a_deployment_fills_it_again(site: Site) -> None:
    stopped = site.ask("stop")

    assert stopped["status"] == "stopped"
    assert _eventually(lambda: _running(site, 1) == 0)
    status, told, _ = site.server.request("POST", "/api/v1/projects/team/project/environments/production/rollback", {})
    assert (status, "nothing serves" in told.decode()) == (400, True)
    again = site.until(site.ask("deploy", release=1), "promoted")
    assert again["release"] == 1
    assert site.get() == "1"


def test_where_it_is_wanted_a_newer_rollout_waits_for_its_turn(site: Site) -> None:
    site.declare(overlap="queue", strategy={"kind": "canary", "steps": [50], "pause": "4s", "analysis": False})
    site.version("Two")
    two = site.ask("deploy")
    site.version("Three")
    three = site.ask("deploy")
    site.version("Four")
    four = site.ask("deploy")

    assert (three["status"], four["status"]) == ("waiting", "waiting")
    assert site.until(two, "promoted")["release"] == 2
    assert site.until(four, "promoted")["previous"] == 2
    assert site.until(three, "superseded")["weight"] == 0


def test_an_application_that_leaks_is_stopped_at_its_limit_and_taken_back(site: Site) -> None:
    site.declare(memory="300M", strategy={"kind": "canary", "steps": [50], "pause": "40s", "analysis": False})

    leak = "import threading\nkept = []\ndef leak():\n    while True:\n        kept.append(bytearray(20 << 20))\n        time.sleep(0.05)\n"
    back = site.deployed(
        "Two",
        before=leak
        + "def start():\n    try:\n        leak()\n    except MemoryError:\n        os._exit(9)\nthreading.Thread(target=start).start()",
    )

    assert back["status"] == "rolled_back"
    ways = ("again and again", "healthy and is not any more", "was not ready after")  # by when the limit was met
    assert any(way in back["explanation"]["what"] for way in ways), back
    assert site.get() == "1"


def test_an_instance_that_ignores_the_request_to_end_is_ended(site: Site) -> None:
    site.declare(strategy=AT_ONCE, bake="0s", stop_timeout="1s", drain="1s")
    assert site.deployed("Two", before="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")["status"] == "promoted"
    pid = supervisor.state(str(site.server.data / "delivery/team/project/production/releases/2/run/0"))["pid"]

    assert site.deployed("Three")["status"] == "promoted"

    assert _eventually(lambda: _running(site, 2) == 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
