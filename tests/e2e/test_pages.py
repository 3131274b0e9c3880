"""The pages in a real browser: what is shown, live updates, the log viewer, and no word of complaint on the console."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import Server, commit, have, project

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: python3 dev.py setup")

CHROMIUM = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome") if Path(p).exists()), "")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: apt install chromium")]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

PIPELINE = """
stages: [build, test]
build: {stage: build, script: ["echo -e '\\\\e[31mred text\\\\e[0m'", sleep 2, echo finished]}
test: {stage: test, script: ["seq 1 30000", "echo 'src/a.py:3: error: wrong'", "false"]}
by hand: {stage: test, when: manual, script: [echo started by hand]}
"""


@pytest.fixture
def page(server: Server) -> Iterator["Page"]:
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        made = browser.new_page(base_url=server.url)
        complaints: list[str] = []
        made.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        made.on("pageerror", lambda e: complaints.append(str(e)))
        yield made
        browser.close()
        assert [c for c in complaints if not c.startswith("Canvas2D: ")] == []  # advice for xterm.js on how to be faster


def test_a_run_is_watched_from_push_to_red(server: Server, tmp_path: Path, page: "Page") -> None:
    assert have("git")
    page.goto("/")
    assert page.get_by_text("git push").is_visible()
    server.push(project(tmp_path / "p", PIPELINE))

    page.goto("/team/project/runs/1")
    page.locator("h1 .status.running").wait_for()
    page.locator("h1 .status.failed").wait_for(timeout=20_000)  # by itself: nobody reloads

    assert page.locator("svg.graph a.node").count() == 3
    assert page.locator("svg.graph a.failed").get_attribute("aria-label") == "test: failed"
    page.get_by_role("button", name="Start").click()
    page.locator("ci-log").get_by_text("started by hand", exact=True).wait_for()


def test_what_happens_before_a_page_hears_is_seen(server: Server, tmp_path: Path, page: "Page") -> None:
    server.push(project(tmp_path / "p", "job: {script: [echo the first line, sleep 5, echo the last line]}"))
    held: list[Route] = []
    page.route("**/api/v1/events?*", lambda route: held.append(route))
    page.goto("/jobs/1")
    page.locator("h1 .status.running").wait_for()
    page.locator("ci-log").get_by_text("the first line", exact=True).wait_for()
    while len(held) < 2:  # the head and the log hear, each for itself
        page.wait_for_timeout(50)
    server.until_ended(1)
    for route in held:
        route.continue_()

    page.locator("ci-log").get_by_text("the last line", exact=True).wait_for(timeout=10_000)
    page.locator("h1 .status.passed").wait_for(timeout=10_000)


def test_an_older_attempt_is_read_while_the_next_runs(server: Server, tmp_path: Path, page: "Page") -> None:
    server.push(project(tmp_path / "p", "job: {script: [echo attempt done, 'for i in $(seq 40); do echo $i; sleep 0.1; done']}"))
    server.until_ended(1)
    server.request("POST", "/api/v1/jobs/1/retry")
    visits: list[str] = []
    page.on("framenavigated", lambda frame: visits.append(frame.url))
    page.goto("/jobs/1?attempt=1")
    page.locator(".logview .row").get_by_text("attempt done", exact=True).wait_for()
    server.until_ended(1)
    page.locator("h1 .status.passed").wait_for()  # the head tells of the newest, by itself
    page.wait_for_timeout(500)

    assert len(visits) == 1


def test_what_becomes_of_a_change_request_is_seen_at_once(server: Server, tmp_path: Path, page: "Page") -> None:
    folder, requests = project(tmp_path / "p", "job: {script: ['true']}"), "/api/v1/projects/team/project/requests"
    server.push(folder)
    commit(folder, "job: {script: ['true', 'true']}")
    server.push(folder, ref="work")
    assert server.request("POST", requests, {"source": "work"})[0] == 201
    for run in server.runs():
        server.until_ended(run["id"])
    page.clock.install(time=0)
    page.goto("/team/project/requests/1")
    page.locator("h1 .status.running").wait_for()
    page.clock.pause_at(60_000)  # the page's own look, each five seconds, does not come from here on
    time.sleep(1)
    server.request("POST", f"{requests}/1/close", {})

    for _ in range(20):
        page.clock.run_for(160)
        time.sleep(0.2)
        if page.locator("h1 .status.canceled").count():
            return
    raise AssertionError("the page does not tell that the request was closed")


def test_a_long_log_is_searched_folded_and_linked(server: Server, tmp_path: Path, page: "Page") -> None:
    server.push(project(tmp_path / "p", PIPELINE))
    run = server.until_ended(1)

    page.goto(f"/jobs/{run['jobs']['test']['id']}")
    page.locator(".logview .row").first.wait_for()
    assert page.locator(".logview .row").count() < 200
    page.get_by_role("button", name="First error").click()
    page.get_by_text("src/a.py:3: error: wrong", exact=True).wait_for()
    assert "#L" in page.url
    page.get_by_label("Search the log").fill("29999")
    page.get_by_label("Search the log").press("Enter")
    page.locator(".row.current", has_text="29999").wait_for()
    page.goto(f"/jobs/{run['jobs']['test']['id']}#L1")
    page.get_by_role("button", name="Running the script").click()
    assert page.get_by_role("button", name="Running the script").get_attribute("aria-expanded") == "false"


def test_everything_is_readable_without_javascript(server: Server, tmp_path: Path) -> None:
    server.push(project(tmp_path / "p", PIPELINE))
    run = server.until_ended(1)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(java_script_enabled=False, base_url=server.url).new_page()

        page.goto(f"/jobs/{run['jobs']['build']['id']}")
        assert page.locator("pre.log .fg1").inner_text() == "red text"
        page.goto("/team/project/runs/1")
        page.get_by_role("button", name="Start").click()
        assert page.url.endswith(f"/jobs/{run['jobs']['by hand']['id']}")
        browser.close()


def test_signing_in_and_out(server: Server, page: "Page") -> None:

    server.admin("password", given="correct horse battery\n")
    page.goto("/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Projects").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def test_bytes_that_are_no_text_are_shown_and_harm_nothing(server: Server, tmp_path: Path, page: "Page") -> None:
    garbage = r"printf 'be\xff\xfefore \x00\x07\x1b[999;999Hafter \xed\xa0\x80 <script>alert(1)</script>\n'"
    server.push(project(tmp_path / "p", f"job:\n  script:\n    - {garbage}\n    - echo last\n"))
    run = server.until_ended(1)

    assert run["status"] == "passed"
    page.goto(f"/jobs/{run['jobs']['job']['id']}")
    page.get_by_text("Job passed").wait_for()
    text = page.inner_text("main")
    assert "<script>alert(1)</script>" in text
    assert "after" in text


def test_a_log_of_a_hundred_megabytes_stays_usable(server: Server, tmp_path: Path, page: "Page") -> None:
    lines = "seq -f 'line %09.0f of a log that somebody forgot to make quiet, with a little more text to it' 1 1200000"
    server.push(project(tmp_path / "p", f"job:\n  script: {lines}\n"))
    run = server.until_ended(1, 120)
    sent = 0

    def count(response: object) -> None:
        nonlocal sent
        sent += int(response.headers.get("content-length") or 0)  # type: ignore[attr-defined]

    page.on("response", count)
    page.goto(f"/jobs/{run['jobs']['job']['id']}")
    page.get_by_text("Job passed").wait_for(timeout=10_000)

    assert sent < 5_000_000  # not the 100 MB: only what is looked at
    assert page.evaluate("document.querySelectorAll('*').length") < 20_000
