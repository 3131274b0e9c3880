"""What pages refuse to unpack, and the graph."""

import io
import zipfile
from pathlib import Path

import pytest

from trunkline.model.errors import ConfigError
from trunkline.model.runs import Status
from trunkline.server import graph, pages
from trunkline.server.api import runs
from trunkline.testing.builders import a_job, a_run


def a_zip(**files: bytes) -> zipfile.ZipFile:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(data)


def test_a_zip_bomb_is_stopped_by_what_it_unpacks_to() -> None:
    with pytest.raises(ConfigError, match="more than 20 MB"):
        pages._member(a_zip(bomb=b"\0" * (40 << 20)), "bomb")


def test_a_member_is_shown_as_text_and_never_as_a_page() -> None:
    reply = pages._member(a_zip(page=b"<script>alert(1)</script>"), "page")

    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.headers["content-security-policy"] == "sandbox"
    with pytest.raises(ConfigError):
        pages._member(a_zip(a=b""), "b")


def test_a_log_that_grows_while_it_is_sent_is_sent_as_long_as_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"0123456789")
    whole, part, beyond = runs.log_response(str(log), ""), runs.log_response(str(log), "bytes=4-"), runs.log_response(str(log), "bytes=10-")
    log.write_bytes(b"0123456789 and more")

    assert whole.headers["content-length"] == "10"
    assert b"".join(runs._part(str(log), 0, 10)) == b"0123456789"
    assert (part.status_code, part.headers["content-range"]) == (206, "bytes 4-9/10")
    assert beyond.status_code == 416


def test_names_in_the_graph_are_escaped() -> None:
    assert "<script>" not in graph.svg(a_run(a_job("<script>alert(1)</script>")))


def test_parallel_jobs_share_a_box_that_shows_the_worst() -> None:
    run = a_run(a_job("t 1/2", group="t", status=Status.PASSED), a_job("t 2/2", group="t", status=Status.FAILED))

    drawn = graph.svg(run)

    assert drawn.count('class="node') == 1
    assert "t: failed, 1 of 2 passed" in drawn


def test_a_chain_of_needs_is_drawn_in_columns() -> None:
    run = a_run(a_job("a", needs=()), a_job("b", needs=("a",)), a_job("c", needs=("b",)))

    assert [b.column for b in graph.boxes(run)[0]] == [0, 1, 2]
