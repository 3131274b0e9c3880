"""What becomes of jobs whose machine says nothing: by the clock, without waiting for it."""

import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git

from trunkline.adapters.stores.sql import SqlStore
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import AllowFailure, Artifacts, Job, ReportSpec, Retry, When
from trunkline.model.runs import JobRun, Status
from trunkline.server.fartraces import FarTrace
from trunkline.server.fleet import GRACE, ONLINE, SILENT, UNACKNOWLEDGED, Fleet
from trunkline.server.hub import Hub
from trunkline.server.line import Line
from trunkline.server.payloads import payload
from trunkline.server.repositories import Repositories

PHASED = {"features": {"two_phase_job_commit": True, "cancel_gracefully": True}}


class NoPool:
    """A server that works nothing itself."""

    slots = 0
    free = 0

    def __init__(self) -> None:
        self.busy: dict[int, Any] = {}

    def start(self, *_: Any) -> None:
        raise AssertionError("nothing is worked here")

    def cancel(self, job: int) -> None:
        """Nothing runs."""

    def objections(self, job: JobRun) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with one job waiting, of a project that was pushed."""
    store = SqlStore(f"sqlite:///{tmp_path}/state.sqlite")
    repositories = Repositories(str(tmp_path / "repositories"), str(tmp_path / "trees"))
    line = Line(store, repositories, NoPool(), Hub(), str(tmp_path), "http://ci.example", 3600.0)
    made = Fleet(store, line, "http://ci.example")
    line.has_fleet, line.leaves_here, line.on_canceled = (lambda: True), made.leaves_here, made.canceled
    source = tmp_path / "source"
    source.mkdir()
    (source / ".gitlab-ci.yml").write_text("test: {tags: [far], script: ['true']}\n")
    git(source, "init", "--quiet", "--initial-branch=main")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "first")
    repositories.create("team/app")
    git(source, "push", "--quiet", repositories.git_dir("team/app"), "HEAD:main")
    line.take_refs("team/app", "")
    yield made
    store.close()


def _job(fleet: Fleet) -> JobRun:
    return fleet.line.run(1).jobs[0]


def test_what_was_handed_out_and_never_begun_goes_to_another(fleet: Fleet) -> None:
    runner, _ = fleet.register("one", ("far",), run_untagged=False)
    manager = fleet.manager(runner, "s_1", PHASED)
    taken = fleet.take(runner, manager)
    assert taken is not None
    assert fleet.take(runner, manager) is None
    now = time.time()
    fleet.tick(now + UNACKNOWLEDGED - 5)
    assert _job(fleet).status is Status.RUNNING
    fleet.tick(now + UNACKNOWLEDGED + 5)
    assert (_job(fleet).status, _job(fleet).attempt) == (Status.QUEUED, 1)
    with pytest.raises(Exception, match="not its token"):
        fleet.holder(_job(fleet).id, taken[2])
    again = fleet.take(runner, fleet.manager(runner, "s_2", PHASED))
    assert again is not None
    fleet.acknowledge(fleet.holder(again[1].id, again[2]))
    fleet.tick(now + UNACKNOWLEDGED + 5)
    assert _job(fleet).status is Status.RUNNING


def test_a_job_whose_machine_is_silent_is_given_up(fleet: Fleet) -> None:
    runner, _ = fleet.register("one", ("far",), run_untagged=False)
    taken = fleet.take(runner, fleet.manager(runner, "s_1", {"features": {}}))
    assert taken is not None
    fleet.tick(time.time() + SILENT + 5)
    assert (_job(fleet).status, _job(fleet).reason.value) == (Status.FAILED, "stuck_or_timeout_failure")
    assert "said nothing for" in _job(fleet).message


def test_a_canceled_job_may_clean_up_but_not_for_ever(fleet: Fleet) -> None:
    runner, _ = fleet.register("one", ("far",), run_untagged=False)
    taken = fleet.take(runner, fleet.manager(runner, "s_1", PHASED))
    assert taken is not None
    fleet.line.cancel(1)
    assert fleet.state(fleet.holder(taken[1].id, taken[2])) == "canceling"
    fleet.tick(time.time() + GRACE + 5)
    with pytest.raises(Exception, match="not running"):
        fleet.holder(taken[1].id, taken[2])


def test_who_is_online_and_what_a_job_waits_for(fleet: Fleet) -> None:
    run, job = fleet.line.run(1), _job(fleet)
    assert fleet.waits_for(run, job) == "it waits for a free runner"
    other, _ = fleet.register("other", ("gpu",), run_untagged=False)
    assert fleet.waits_for(run, job) == "no runner may take it: other: it has no tag far"
    runner, _ = fleet.register("one", ("far",), run_untagged=False)
    assert fleet.waits_for(run, job) == "it waits for one, which is not online"
    manager = fleet.manager(runner, "s_1", {})
    assert fleet.is_online(runner, time.time())
    assert not fleet.is_online(runner, fleet.contacts[manager.id] + ONLINE + 1)
    assert fleet.waits_for(run, job) == "it waits for a free runner: one may take it"
    assert fleet.fits(other, run, job)


def test_what_a_job_needs_of_its_machine(fleet: Fleet) -> None:
    runner, _ = fleet.register("one", ("far",), run_untagged=True)
    weak, strong = (
        fleet.manager(runner, "s_1", {}),
        fleet.manager(runner, "s_2", {"features": {"upload_multiple_artifacts": 1, "return_exit_code": 1}}),
    )

    def lacks(**about: Any) -> tuple[str, str]:
        job = JobRun(1, Job("a", "test", Place("f"), **about), Status.QUEUED, When.ON_SUCCESS, AllowFailure())
        return fleet.lacks(weak, job), fleet.lacks(strong, job)

    assert lacks() == ("", "")
    assert lacks(artifacts=Artifacts(reports=(ReportSpec("junit", ("x",)),))) == ("upload_multiple_artifacts", "")
    assert lacks(retry=Retry(1, (), (3,))) == ("return_exit_code", "")
    assert lacks(artifacts=Artifacts(paths=("a",), exclude=("b",))) == ("artifacts_exclude", "artifacts_exclude")


def test_a_restart_goes_on_with_what_machines_work(fleet: Fleet) -> None:
    runner, _ = fleet.register("one", ("far",), run_untagged=False)
    taken = fleet.take(runner, fleet.manager(runner, "s_1", PHASED))
    assert taken is not None
    held = fleet.holder(taken[1].id, taken[2])
    fleet.trace(held).append(0, b"before\n")

    line = Line(fleet.store, fleet.line.repositories, NoPool(), Hub(), fleet.line.data, "http://ci.example", 3600.0)
    after = Fleet(fleet.store, line, "http://ci.example")
    assert line.recover() == 0
    after.recover()
    again = after.holder(taken[1].id, taken[2])
    assert after.trace(again).size == 7
    assert line.assigner.tokens.user(taken[2]) is not None
    after.finish(again, True, "", 0)
    assert line.run(1).status is Status.PASSED


def test_what_is_remembered_of_runs_is_what_would_be_counted(fleet: Fleet) -> None:
    line = fleet.line
    runner, _ = fleet.register("one", ("far",), run_untagged=False)

    def remembered() -> list[tuple[int, int]]:
        line.pump()
        return [(line._queued(run), sum(j.status is Status.QUEUED for j in run.jobs)) for run in line.active.values()]

    found = remembered()
    while (taken := fleet.take(runner, fleet.manager(runner, "s_1", PHASED))) is not None:
        found += remembered()
        fleet.finish(fleet.holder(taken[1].id, taken[2]), False, "script_failure", 1)
        found += remembered()
    line.retry(1, taken_name := line.run(1).jobs[0].name)
    found += remembered()
    line.cancel(1, taken_name)
    found += remembered()

    assert [mine for mine, _ in found] == [counted for _, counted in found]
    assert {counted for _, counted in found} > {0}


def test_times_before_lines_become_the_index(tmp_path: Path) -> None:
    trace = FarTrace(str(tmp_path / "log"))
    assert trace.append(0, b"2026-11-21T10:00:00.5Z 00O one\n2026-11-21T10:00:01.5Z 01E tw")
    assert not trace.append(3, b"x")
    assert trace.append(
        trace.size, b"o\n2026-11-21T10:00:02.5Z 00O+ and more\nplain\n\x1b[0Ksection_start:1:x\r\x1b[0Khead\nend without newline"
    )
    trace.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo and more\nplain\nsection_start:1:x\r\x1b[0Khead\nend without newline"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.idx"]


def test_a_log_with_times_is_taken_up_where_it_was_when_the_server_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sent = b"2026-11-21T10:00:00.5Z 00O one\n2026-11-21T10:00:01.5Z 01E tw"
    assert FarTrace(str(path), is_new=True).append(0, sent)
    with path.open("ab") as f:
        f.write(b"not answered for")

    after = FarTrace(str(path))
    assert (after.size, after.checksum()) == (len(sent), f"crc32:{zlib.crc32(sent):08x}")
    assert after.append(len(sent), b"o\n")
    after.close()
    assert path.read_bytes() == b"one\ntwo\n"

    assert FarTrace(str(path), is_new=True).append(0, sent)
    path.write_bytes(b"")  # a power cut: what was written last is lost
    assert FarTrace(str(path)).size == 0


def test_a_line_that_does_not_end_is_not_held_for_ever(tmp_path: Path) -> None:
    trace, at = FarTrace(str(tmp_path / "log"), is_new=True), 0
    for piece in (b"2026-11-21T10:00:00.500000Z 00O ", *[b"x" * 400_000] * 5, b"\n2026-11-21T10:00:01.500000Z 00O next\n"):
        assert trace.append(at, piece)
        at += len(piece)
        assert len(trace.held) < 2_000_000
    assert (tmp_path / "log.state").stat().st_size < 2_000_000
    trace.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 2_000_000 + b"\nnext\n"


def test_what_finds_no_room_on_the_disk_may_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = FarTrace(str(tmp_path / "log"), is_new=True)
    sent = b"2026-11-21T10:00:00.500000Z 00O one\n"
    assert trace.append(0, sent)
    with monkeypatch.context() as patched:
        patched.setattr(trace.show, "put", lambda fd, data: (os.write(fd, data[:2]), os.write(os.open("/dev/full", os.O_WRONLY), data)))
        with pytest.raises(OSError, match="No space"):
            trace.append(len(sent), sent)

    assert trace.append(len(sent), sent)
    trace.close()
    assert (tmp_path / "log").read_bytes() == b"one\none\n"


def _payload_of(fleet: Fleet, files: dict[str, str]) -> dict[str, Any]:
    """Push these files, take the job and return what its machine is told."""
    source = Path(fleet.line.data) / "source"
    for name, text in files.items():
        (source / name).write_text(text)
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--allow-empty", "--message", "more")
    git(source, "push", "--quiet", fleet.line.repositories.git_dir("team/app"), "HEAD:main")
    started = fleet.line.take_refs("team/app", "")
    runner = next(iter(fleet.runners.values()), None) or fleet.register("one", ("far",), run_untagged=False)[0]
    taken = fleet.take(runner, fleet.manager(runner, "s_1", {**PHASED, "features": {**PHASED["features"], "fallback_cache_keys": True}}))
    assert taken is not None
    assert taken[0].id == started[0].id
    told: dict[str, Any] = payload(fleet, *taken)
    fleet.finish(fleet.holder(taken[1].id, taken[2]), True, "", 0)
    return told


@pytest.mark.parametrize("cut", [1, 10, 20, 31, 32, 33, 40, 60, 200])
def test_times_stand_in_all_lines_or_in_none_wherever_the_pieces_are_cut(tmp_path: Path, cut: int) -> None:
    line = b"2026-08-22T10:00:00.123456Z 00O a line of a log\n"
    for name, sent, read in (
        ("timed", line * 4, b"a line of a log\n" * 4),
        ("plain", b"a program prints:\n" + line * 4, b"a program prints:\n" + line * 4),
    ):
        trace = FarTrace(str(tmp_path / name), is_new=True)
        for at in range(0, len(sent), cut):
            assert trace.append(at, sent[at : at + cut])
        trace.close()
        assert (tmp_path / name).read_bytes() == read


def test_a_cache_key_of_files_is_another_one_only_when_they_change(fleet: Fleet) -> None:
    fleet.line.cancel(1)
    caches = "cache: [{key: {files: [lock, none], prefix: p}, paths: [a]}, {key: {files_commits: [lock]}, paths: [b]}]"
    first = _payload_of(fleet, {".gitlab-ci.yml": f"test: {{tags: [far], script: ['true'], {caches}}}\n", "lock": "one"})
    same = _payload_of(fleet, {"other": "x"})
    changed = _payload_of(fleet, {"lock": "two"})
    back = _payload_of(fleet, {"lock": "one"})

    keys = [[cache["key"] for cache in told["cache"]] for told in (first, same, changed, back)]
    assert keys[0] == keys[1]
    assert keys[0][0] == keys[3][0] != keys[2][0], "what the files hold"
    assert len({pair[1] for pair in keys}) == 3, "which commit changed them"
    assert keys[0][0].startswith("p-")


def test_the_ref_of_a_run_goes_with_it(fleet: Fleet) -> None:
    repositories = fleet.line.repositories
    fleet.line.cancel(1)
    _payload_of(fleet, {"other": "x"})
    assert list(repositories.refs("team/app", "refs/pipelines")) == ["refs/pipelines/2"]
    after = Fleet(fleet.store, fleet.line, "http://ci.example")
    after.recover()

    after.forget()

    assert repositories.refs("team/app", "refs/pipelines") == {}
