"""Logs for people."""

from pathlib import Path

from trunkline.execution.trace import Trace
from trunkline.server import traces


def a_log(path: Path) -> str:
    trace = Trace(str(path))
    trace.say("first")
    with trace.section("script", "Running the script"):
        trace.write(b"plain\n\x1b[31mred <b>\x1b[0m\nsrc/a.py:3: error: wrong\n")
    trace.say("last")
    trace.close()
    return str(path)


def test_the_outline_knows_sections_lines_and_the_first_error(tmp_path: Path) -> None:
    outline = traces.outline(a_log(tmp_path / "log"))

    assert outline["lines"] == 7
    assert [(s["name"], s["title"], s["from"], s["to"]) for s in outline["sections"]] == [("script", "Running the script", 1, 5)]
    assert outline["error"] == 4


def test_search_ignores_case_and_gives_lines(tmp_path: Path) -> None:
    path = a_log(tmp_path / "log")

    assert traces.search(path, "RED") == [3]
    assert traces.search(path, "nowhere") == []


def test_html_escapes_and_colours() -> None:
    html = traces.to_html("a <script>\n\x1b[31;1mred\x1b[0m\nbefore\rafter\x00")

    assert "<script>" not in html
    assert '<span class="fg1 bold">red</span>' in html or '<span class="bold fg1">red</span>' in html
    assert "\x00" not in html
    assert "before" not in html


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert traces.outline(str(tmp_path / "none"))["lines"] == 0
    assert traces.tail(str(tmp_path / "none")) == ("", 0)
