"""Logs: masking across borders, the index, limits."""

import tempfile
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trunkline.execution.trace import ENTRY, Masker, Trace


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 20))
def test_a_secret_is_masked_however_it_is_cut(cuts: list[int], before: int) -> None:
    text = b"x" * before + b"s3cr3t-value" + b"\nmore s3cr3t-value s3cr3t"
    masker = Masker(["s3cr3t-value"])
    out, at = b"", 0
    for cut in cuts:
        out += masker.masked(text[at : at + cut])
        at += cut

    out += masker.masked(text[at:])
    out += masker.masked(b"", last=True)

    assert out == text.replace(b"s3cr3t-value", b"[MASKED]")


def test_the_index_knows_offset_lines_and_time(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "log"))
    trace.write(b"one\ntwo\nthr")
    time.sleep(0.002)
    trace.write(b"ee\nfour\n")
    trace.close()

    entries = list(ENTRY.iter_unpack((tmp_path / "log.idx").read_bytes()))
    assert [(offset, lines) for offset, lines, _ in entries] == [(0, 0), (11, 2)]
    assert entries[0][2] > 1_600_000_000_000


def test_a_log_has_a_largest_size_and_says_so(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "log"), most=100)
    for _ in range(10):
        trace.write(b"x" * 50)
    trace.close()

    text = (tmp_path / "log").read_text()
    assert "The log is full" in text
    assert len(text) < 300


@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"\n", b"a line\n", b"\xff\x00\n", b"section_start:1:x\r\x1b[0K"])), max_size=20
    ),
    st.integers(1, 17),
)
def test_a_log_is_what_was_written_and_its_index_tells_the_truth(pieces: list[bytes], step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log"
        seen: list[bytes] = []
        trace = Trace(path, watcher=seen.append)
        for number, piece in enumerate(pieces):
            if number % 5 == 4:
                trace.say("ours")
            trace.write(piece)
        trace.close()
        whole = Path(path).read_bytes()

        assert whole == b"".join(seen)
        assert trace.size == len(whole)
        last = (-1, -1, -1)
        for entry in ENTRY.iter_unpack(Path(path + ".idx").read_bytes()):
            assert entry > last
            assert whole[: entry[0]].count(b"\n") == entry[1]
            last = entry
        with open(path, "rb") as log:
            assert b"".join(iter(lambda: log.read(step), b"")) == whole
