"""What servers that share a database and a folder make of one another's decisions: two of them in one process, each with its own view."""

import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import git
from tests.unit.server.test_fleet import PHASED, NoPool

from trunkline.adapters.stores.sql import SqlStore
from trunkline.execution.work import Assignment
from trunkline.kit.processes import Cancel
from trunkline.model.errands import Errand
from trunkline.model.errors import Refused
from trunkline.model.runners import Manager, Runner
from trunkline.model.runs import JobResult, Status
from trunkline.ports.peers import Peer
from trunkline.server.fartraces import FarTrace
from trunkline.server.fleet import SILENT, Fleet
from trunkline.server.hub import Hub
from trunkline.server.line import JobRunner, Line
from trunkline.server.repositories import Repositories
from trunkline.server.together import GONE, Together
from trunkline.testing.contracts.peers import Join, PeersContract
from trunkline.testing.peers import Companion, Company

PIPELINE = "test: {tags: [far], parallel: 20, script: ['true']}\n"


class TestInOneProcess(PeersContract):
    """What the tests below stand on."""

    @pytest.fixture
    def join(self) -> Join:
        company = Company()
        return lambda name: Companion(company, name)


class Server:
    """A server without its doors."""

    def __init__(self, root: Path, company: Company, name: str, pool: JobRunner | None = None) -> None:
        self.store = SqlStore(f"sqlite:///{root}/state.sqlite")
        repositories = Repositories(str(root / "repositories"), str(root / f"trees-{name}"))
        self.pool, self.peers, self.errands = pool or NoPool(), Companion(company, name), list[Errand]()
        self.line = Line(self.store, repositories, self.pool, Hub(), str(root), "http://ci.example", 3600.0, peers=self.peers)
        self.fleet = Fleet(self.store, self.line, "http://ci.example")
        self.line.has_fleet, self.line.leaves_here = (lambda: bool(self.fleet.runners)), self.fleet.leaves_here
        self.line.on_canceled, self.line.on_renewed = self.fleet.canceled, self.fleet.renewed
        me = Peer(0, "", name, f"http://{name}")
        self.together = Together(
            self.peers,
            self.store,
            self.line,
            self.fleet,
            self.line.hub,
            me,
            {},
            lambda leads: None,
            lambda speaks: None,
            self.errands.append,
        )

    def renew(self) -> None:
        """Hear of everything."""
        self.line.renew_all()

    def taker(self, name: str) -> tuple[Runner, Manager]:
        """Return a runner that is known here, and a manager of it."""
        runner = next(iter(self.fleet.runners.values()))
        return runner, self.fleet.manager(runner, name, PHASED)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What two servers share: a project that was pushed."""
    source = tmp_path / "source"
    source.mkdir()
    (source / ".gitlab-ci.yml").write_text(PIPELINE)
    git(source, "init", "--quiet", "--initial-branch=main")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message", "first")
    repositories = Repositories(str(tmp_path / "repositories"), str(tmp_path / "trees"))
    repositories.create("team/app")
    git(source, "push", "--quiet", repositories.git_dir("team/app"), "HEAD:main")
    return tmp_path


@pytest.fixture
def two(root: Path) -> Iterator[tuple[Server, Server]]:
    """Two servers; what one does the other hears of when a test says so."""
    company = Company()
    one, other = Server(root, company, "one"), Server(root, company, "other")
    one.fleet.register("far", ("far",), run_untagged=False)
    other.fleet.reload()
    one.line.take_refs("team/app", "")
    yield one, other
    one.store.close()
    other.store.close()


def test_a_push_that_both_hear_of_is_one_run(two: tuple[Server, Server]) -> None:
    one, other = two

    assert other.line.take_refs("team/app", "") == []
    assert list(other.line.active) == list(one.line.active) == [1]


def test_no_job_is_handed_out_twice_though_neither_has_heard_of_the_other(two: tuple[Server, Server]) -> None:
    one, other = two
    other.renew()
    takers = [(server, server.taker(f"s_{n}{server.peers.name}")) for n in range(2) for server in two]

    def take_all(who: tuple[Server, tuple[Runner, Manager]]) -> list[int]:
        server, taker = who
        found = []
        while (taken := server.fleet.take(*taker)) is not None:
            found.append(taken[1].id)
        return found

    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(take_all, takers))

    assert sorted(job for found in taken for job in found) == [job.id for job in one.line.run(1).jobs]


def test_a_job_may_be_begun_at_one_server_and_ended_at_the_other(two: tuple[Server, Server]) -> None:
    one, other = two
    taken = one.fleet.take(*one.taker("s_1"))
    assert taken is not None
    run, job, secret = taken

    held = other.fleet.holder(job.id, secret)
    other.fleet.acknowledge(held)
    assert other.fleet.trace(held).append(0, b"first\n")
    assert one.fleet.trace(one.fleet.holder(job.id, secret)).append(6, b"second\n")
    other.fleet.add_dotenv(held, [("URL", "http://x")])
    one.fleet.add_dotenv(held, [("B", "2")])
    bearer = other.line.assigner.tokens.bearer(secret)
    assert bearer is not None
    assert (bearer.job, bearer.project) == (job.id, "team/app")
    trace = other.fleet.trace(held)
    trace.look()
    assert trace.checksum() == f"crc32:{zlib.crc32(b'first' + bytes([10]) + b'second' + bytes([10])):08x}"
    other.fleet.finish(held, True, "", 0, other.fleet.dotenv(held))

    one.line.renew(run.id)
    assert one.line.run(run.id).job_by_id(job.id).status is Status.PASSED
    assert Path(one.line.trace_path(run.id, job.id, 1)).read_bytes() == b"first\nsecond\n"
    assert one.store.read(lambda tx: tx.dotenv(run.id)) == {job.name: (("URL", "http://x"), ("B", "2"))}
    for server in two:
        assert server.line.assigner.tokens.bearer(secret) is None
        with pytest.raises(Refused):
            server.fleet.holder(job.id, secret)
    assert sorted(p.name for p in Path(one.line.trace_path(run.id, job.id, 1)).parent.iterdir()) == [
        f"{job.id}-1.log",
        f"{job.id}-1.log.idx",
    ]


def test_a_token_of_another_key_or_of_nothing_is_none(two: tuple[Server, Server], tmp_path: Path) -> None:
    one, other = two
    run = one.line.run(1)
    secret = one.line.assigner.tokens.issue(run, run.jobs[0])

    assert other.line.assigner.tokens.bearer(secret) is None, "its job does not run"
    for wrong in ("", "glcbt-", "glcbt-x", secret[:-1], f"{secret}=", "glcbt-" + "A" * len(secret)):
        assert other.line.assigner.tokens.bearer(wrong) is None


def test_a_ticket_for_a_site_is_good_at_each_server(two: tuple[Server, Server]) -> None:
    one, other = two
    ticket = one.line.publisher.ticket("team/app", int(time.time()) + 60)

    other.line.publisher._check(ticket, "team/app")
    with pytest.raises(Refused):
        other.line.publisher._check(ticket, "team/other")


def test_a_job_that_is_canceled_at_one_server_is_canceled_for_its_machine_at_the_other(two: tuple[Server, Server]) -> None:
    one, other = two
    taken = one.fleet.take(*one.taker("s_1"))
    assert taken is not None

    other.renew()
    other.line.cancel(1)
    one.renew()

    assert one.fleet.state(one.fleet.holder(taken[1].id, taken[2])) == "canceling"
    assert other.fleet.state(other.fleet.holder(taken[1].id, taken[2])) == "canceling"
    assert one.line.active == other.line.active == {}


def test_both_settle_at_once_and_nothing_is_forgotten(two: tuple[Server, Server]) -> None:
    one, other = two
    other.renew()
    taken = {server.peers.name: [server.fleet.take(*server.taker(f"s_{server.peers.name}")) for _ in range(10)] for server in two}

    def end_all(server: Server) -> None:
        for found in taken[server.peers.name]:
            assert found is not None
            server.fleet.finish(server.fleet.holder(found[1].id, found[2]), True, "", 0)

    threads = [threading.Thread(target=end_all, args=(server,)) for server in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert one.store.read(lambda tx: tx.versions()) == {}
    run = one.store.read(lambda tx: tx.load_run(1))
    assert run is not None
    assert {job.status for job in run.jobs} == {Status.PASSED}
    assert run.status is Status.PASSED


def test_a_machine_that_speaks_to_another_server_is_not_silent(two: tuple[Server, Server]) -> None:
    one, other = two
    taken = one.fleet.take(*one.taker("s_1"))
    assert taken is not None
    held = other.fleet.holder(taken[1].id, taken[2])
    other.fleet.acknowledge(held)
    one.renew()
    one.fleet.heard[held.job] = time.time() - SILENT - 100

    other.fleet.trace(held).append(0, b"still there\n")
    one.fleet.tick(time.time())

    assert one.line.run(1).job_by_id(held.job).status is Status.RUNNING


class OnePool(NoPool):
    """A server's own runner with one slot, whose jobs end when a test says so."""

    slots = free = 1

    def __init__(self) -> None:
        self.busy: dict[int, Cancel] = {}
        self.started: list[tuple[int, Any]] = []
        self.canceled: list[int] = []

    def start(self, job: int, task: Assignment, output: Any, ended: Any) -> None:
        self.started.append((job, ended))
        self.free = 0

    def cancel(self, job: int) -> None:
        self.canceled.append(job)


def test_jobs_of_a_server_that_is_no_more_are_given_up_and_its_late_word_counts_for_nothing(root: Path) -> None:
    company = Company()
    one, other = Server(root, company, "one", OnePool()), Server(root, company, "other", OnePool())
    for server in (one, other):
        server.together._introduced()
    other.peers.start(Peer(2, "", "other"), other.together._told, other.together._led)
    one.line.take_refs("team/app", "")
    other.renew()
    assert isinstance(one.pool, OnePool)
    job, ended = one.pool.started[0]
    assert one.line.run(1).job_by_id(job).server == "one"

    now = time.time()
    other.together._count(now)
    other.together._count(now + GONE - 1)
    assert other.line.run(1).job_by_id(job).status is Status.RUNNING, "it may be about to come back"
    assert isinstance(other.pool, OnePool)
    other.pool.free = 1
    other.together._count(now + GONE + 1)

    given_up = other.line.run(1).job_by_id(job)
    assert (given_up.attempt, given_up.status, given_up.server) == (2, Status.RUNNING, "other")
    one.renew()
    assert one.pool.canceled == [job]
    one.pool.free = 1
    ended(JobResult(given_up.name, Status.PASSED))
    one.renew()
    assert one.line.run(1).job_by_id(job) == given_up
    one.store.close()
    other.store.close()


def test_what_a_server_left_in_the_middle_is_picked_up_when_it_has_gone(root: Path) -> None:
    company = Company()
    one, other = Server(root, company, "one"), Server(root, company, "other")
    for number, server in enumerate((one, other), 1):
        server.together._introduced()
        server.peers.start(Peer(number, "", server.peers.name), server.together._told, server.together._led)
    one.peers.leads, other.peers.leads = False, True
    one.line.take_refs("team/app", "")
    other.renew()
    other.together._count(1.0)
    git(root / "source", "commit", "--quiet", "--allow-empty", "--message", "second")
    git(root / "source", "push", "--quiet", one.line.repositories.git_dir("team/app"), "HEAD:main")  # and then it was killed
    other.together._count(2.0)
    assert other.store.read(lambda tx: tx.load_run(2)) is None

    one.peers.close()
    other.together._count(3.0)

    assert other.store.read(lambda tx: tx.load_run(2)) is not None
    one.store.close()
    other.store.close()


def test_what_is_left_for_the_leader_is_done_once_by_it(two: tuple[Server, Server]) -> None:
    one, other = two
    for number, server in enumerate(two, 1):
        server.peers.start(Peer(number, "", server.peers.name), lambda told: None, lambda leads: None)
    errand = Errand(0, "team/app", "green", 1)

    other.together.leave(errand)
    other.together.run_errands()
    assert (one.errands, other.errands) == ([], [])
    one.together.run_errands()
    one.together.run_errands()
    one.together.leave(Errand(0, "team/app", "gone", ref="x"))

    assert [(e.what, e.run, e.ref) for e in one.errands] == [("green", 1, ""), ("gone", 0, "x")]
    assert one.store.read(lambda tx: tx.documents(Errand)) == []


@pytest.mark.parametrize("timed", [False, True])
def test_pieces_of_a_log_that_two_servers_take_by_turns_are_one_log(tmp_path: Path, timed: bool) -> None:
    lines = [f"{f'2026-11-21T10:00:{n % 60:02}.5Z 00O ' if timed else ''}line {n}\n".encode() for n in range(200)]
    sent = b"".join(lines)
    path = str(tmp_path / "log")
    both = [FarTrace(path, is_new=True, is_shared=True), FarTrace(path, is_shared=True)]

    at = 0
    for turn, size in enumerate([7, 300, 1, 19, 1000, 50] * 50):
        piece = sent[at : at + size]
        assert both[turn % 2].append(at, piece)
        assert not both[(turn + 1) % 2].append(at, piece) or not piece
        at += len(piece)
    both[1].look()
    assert (both[1].size, both[1].checksum()) == (len(sent), f"crc32:{zlib.crc32(sent):08x}")
    both[1].close()
    both[0].close()

    assert (tmp_path / "log").read_bytes() == b"".join(b"line %d\n" % n for n in range(200))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.idx"]


def test_what_a_server_wrote_and_did_not_answer_for_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    killed, other = FarTrace(str(path), is_new=True, is_shared=True), FarTrace(str(path), is_shared=True)
    assert killed.append(0, b"first\n")
    with path.open("ab") as f:
        f.write(b"sec")  # and then it was killed

    assert other.append(6, b"second\n")

    assert path.read_bytes() == b"first\nsecond\n"
