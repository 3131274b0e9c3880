"""A simulated fleet against one server: runners that wait, jobs that are handed out and ended, logs that grow. Server and load share this machine.

python3 dev.py bench fleet            SQLite, or the database of TRUNKLINE_DATABASE
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench import bare
from bench.server import Driver, free_port

RUNNERS, JOBS, TRACES, PIECE = 1000, 10_000, 500, 64 << 10
FEATURES = {
    "two_phase_job_commit": False,
    "return_exit_code": True,
    "cancelable": True,
    "upload_multiple_artifacts": True,
    "trace_checksum": True,
}


class Fleet:
    """What asks."""

    def __init__(self, driver: Driver, session: aiohttp.ClientSession, token: str) -> None:
        self.driver, self.session, self.token = driver, session, token

    async def ask(self, number: int, last_update: str = "") -> tuple[int, dict[str, Any] | None, str]:
        """Ask for a job; return the status, the job and what to say next time. A connection that the server has closed meanwhile is made anew."""
        try:
            return await self._ask(number, last_update)
        except aiohttp.ServerDisconnectedError:
            return await self._ask(number, last_update)

    async def _ask(self, number: int, last_update: str) -> tuple[int, dict[str, Any] | None, str]:
        info = {
            "name": "bench",
            "version": "17.0.0",
            "executor": "docker",
            "platform": "linux",
            "architecture": "amd64",
            "features": FEATURES,
        }
        body = {"token": self.token, "system_id": f"s_{number:012d}", "last_update": last_update, "info": info}
        async with self.session.post(f"{self.driver.url}/api/v4/jobs/request", json=body) as answer:
            job = await answer.json() if answer.status == 201 else None
            return answer.status, job, answer.headers.get("X-GitLab-Last-Update", last_update)

    async def end(self, job: dict[str, Any]) -> None:
        """End a job well."""
        body = {"token": job["token"], "state": "success", "exit_code": 0, "checksum": "crc32:00000000", "output": {"bytesize": 0}}
        async with self.session.put(f"{self.driver.url}/api/v4/jobs/{job['id']}", json=body) as answer:
            assert answer.status in (200, 202), await answer.text()


class Talk(asyncio.Protocol):
    """A machine that appends to one log, piece after piece, on one connection. As little as can be: the load shares the machine with the server."""

    def __init__(self, port: int, job: dict[str, Any], piece: bytes, until: float) -> None:
        path = f"/api/v4/jobs/{job['id']}/trace"
        self.head = f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nJOB-TOKEN: {job['token']}\r\nContent-Type: text/plain\r\nContent-Length: {len(piece)}\r\n"
        self.piece, self.until, self.offset, self.count = piece, until, 0, 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def _send(self) -> None:
        assert self.transport is not None
        span = f"Content-Range: {self.offset}-{self.offset + len(self.piece) - 1}\r\n\r\n"
        self.transport.writelines([(self.head + span).encode(), self.piece])

    def data_received(self, data: bytes) -> None:
        """Send the next when one was taken."""
        assert self.transport is not None
        assert data.startswith(b"HTTP/1.1 202 "), data
        assert data.endswith(b"\r\n\r\n"), "an answer without a body, in one piece"
        self.offset, self.count = self.offset + len(self.piece), self.count + 1
        if time.monotonic() < self.until:
            self._send()
        else:
            self.transport.close()
            self.ended.set_result(None)


def _cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    return int(next(line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))) / 1024


def _against(bound: str, rate: float, bare: float) -> None:
    """Print a figure against what this machine does where nothing is decided: it tells more than the figure, which is the machine's as much as ours."""
    print(f"  - {bound:56} {bare:>16,.0f}   ratio {rate / bare:.2f}", flush=True)


def _say(what: str, value: str, goal: str, met: bool) -> None:
    print(f"  {what:58} {value:>16}   goal {goal:12} {'met' if met else 'MISSED'}", flush=True)


async def idle(fleet: Fleet, seconds: float = 60.0) -> None:
    """Runners that wait for jobs by long polls."""
    stop = asyncio.Event()

    async def poll(number: int) -> None:
        last = ""
        while not stop.is_set():
            _, _, last = await fleet.ask(number, last)

    tasks = [asyncio.create_task(poll(n)) for n in range(RUNNERS)]
    await asyncio.sleep(8)  # the first word of each is more than a poll
    pid = fleet.driver.process.pid
    before, began = _cpu(pid), time.monotonic()
    await asyncio.sleep(seconds)
    share = (_cpu(pid) - before) / (time.monotonic() - began)
    _say(f"{RUNNERS} runners that wait: share of one core", f"{share * 100:.1f} %", "10 %", share < 0.10)
    stop.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _pipeline(jobs: int, name: str = "job") -> str:
    return "".join(f'"{name} {n}": {{script: ["true"], tags: [fleet]}}\n' for n in range(jobs))


async def throughput(fleet: Fleet, jobs: int, workers: int, goal: float, database: str) -> None:
    """Many queued jobs, each taken and ended at once."""
    left = jobs
    taken: list[float] = []

    async def work(number: int) -> None:
        nonlocal left
        last = ""
        while left > 0:
            status, job, last = await fleet.ask(number, last)
            if status == 201 and job is not None:
                await fleet.end(job)
                left -= 1
                taken.append(time.monotonic())

    began, memory = time.monotonic(), _memory(fleet.driver.process.pid)
    tasks = [asyncio.create_task(work(n)) for n in range(workers)]
    while left > 0 and time.monotonic() - began < 180:
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    rate = len(taken) / (max(taken) - began)
    grown = _memory(fleet.driver.process.pid) - memory
    _say(f"jobs handed out and ended a second ({len(taken)} queued, {workers} at a time)", f"{rate:.0f}", f"{goal:.0f}", rate >= goal)
    _say("- memory that this took", f"{grown:.0f} MB", "60 MB", grown < 60)
    _against("their rows by the bare driver, alone on this machine", rate, bare.changes(database, fleet.driver.root))


async def latency(fleet: Fleet, count: int = 200) -> None:
    """A free runner that waits, and one job after the other becomes ready."""
    taken: asyncio.Queue[tuple[float, dict[str, Any]]] = asyncio.Queue()
    stop = asyncio.Event()

    async def wait() -> None:
        last = ""
        while not stop.is_set():
            status, job, last = await fleet.ask(0, last)
            if status == 201 and job is not None:
                taken.put_nowait((time.time(), job))
                await fleet.end(job)

    waiting = asyncio.create_task(wait())
    delays = []
    for _ in range(count):
        async with fleet.session.post(f"{fleet.driver.url}/api/v1/projects/bench/one/runs", json={"ref": "main"}) as answer:
            told = await answer.json()
            assert "id" in told, told
            run = told["id"]
        at, _ = await asyncio.wait_for(taken.get(), 30)
        async with fleet.session.get(f"{fleet.driver.url}/api/v1/runs/{run}") as answer:
            ready = (await answer.json())["jobs"][0]["queued_at"]
        delays.append(at - ready)
    stop.set()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    worst = statistics.quantiles(delays, n=20)[-1]
    _say("from ready to handed out, a runner is free, p95", f"{worst * 1000:.0f} ms", "100 ms", worst < 0.1)


async def traces(fleet: Fleet, seconds: float = 20.0, has_times: bool = False) -> None:
    """Logs that grow, all at once; `has_times`: with what current runners put before each line, which is taken out for people."""
    jobs = []
    for number in range(TRACES):
        status, job, _ = await fleet.ask(number)
        assert status == 201, status
        assert job is not None
        jobs.append(job)
    line = b"line of a build log that looks like a compiler or a test runner talking, 89 bytes in all\n"
    if has_times:
        line = b"2026-11-29T17:30:00.123456Z 00O " + line
    piece = (line * (PIECE // len(line) + 1))[:PIECE]
    pid = fleet.driver.process.pid
    memory, used, own, began = _memory(pid), _cpu(pid), time.process_time(), time.monotonic()
    rate = await _appended(jobs, piece, int(fleet.driver.url.rsplit(":", 1)[1]), seconds)
    took = time.monotonic() - began
    print(
        f"  (processor time: server {(_cpu(pid) - used) / took:.0%} of a core, load {(time.process_time() - own) / took:.0%})", flush=True
    )
    grown = _memory(fleet.driver.process.pid) - memory
    _say(
        f"appends of 64 KiB a second ({TRACES} logs{', each line with its time' if has_times else ''})", f"{rate:.0f}", "3000", rate >= 3000
    )
    _say("- memory that this took", f"{grown:.0f} MB", "60 MB", grown < 60)
    for job in jobs:
        await fleet.end(job)
    with tempfile.TemporaryDirectory(dir=fleet.driver.root) as folder:
        port = free_port()
        taker = bare.taker(Path(folder), port)
        try:
            await bare.wait_for(port)
            _against("the same web server that only writes them to files", rate, await _appended(jobs, piece, port, seconds / 2))
        finally:
            taker.terminate()
            taker.wait()


async def _appended(jobs: list[dict[str, Any]], piece: bytes, port: int, seconds: float) -> float:
    """Let each job's log grow for a while; return the pieces a second."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    until = began + seconds
    talks = [(await loop.create_connection(lambda job=job: Talk(port, job, piece, until), "127.0.0.1", port))[1] for job in jobs]  # type: ignore[misc]
    await asyncio.gather(*(talk.ended for talk in talks))
    return sum(talk.count for talk in talks) / (time.monotonic() - began)


async def _all(driver: Driver, names: list[str], goal: float, database: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)) as session:
        made = driver.get("/api/v1/runners", {"description": "fleet", "tags": ["fleet"]})
        fleet = Fleet(driver, session, made["token"])
        driver.push(_pipeline(1), "one")
        _, job, _ = await fleet.ask(0)
        assert job is not None
        await fleet.end(job)
        if "latency" in names:
            await latency(fleet)
        if "idle" in names:
            await idle(fleet)
        if "traces" in names:
            driver.push(_pipeline(TRACES), "talk")
            await traces(fleet)
            driver.push(_pipeline(TRACES), "times")
            await traces(fleet, has_times=True)
        if "throughput" in names:
            for number in range(JOBS // 1000):
                driver.push(_pipeline(1000), f"many{number}")
            await throughput(fleet, JOBS, int(os.environ.get("BENCH_SLOTS", "100")), goal, database)


def main(root: Path, names: list[str]) -> None:
    """Run what is named, or all."""
    database = os.environ.get("TRUNKLINE_DATABASE", "")
    print(f"fleet on {database.partition('://')[0] or 'sqlite'}")
    driver = Driver(root)
    try:
        asyncio.run(_all(driver, names or ["latency", "idle", "traces", "throughput"], 200 if database else 300, database))
    finally:
        driver.process.terminate()
        driver.process.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        main(Path(place), sys.argv[1:])
    print(json.dumps({"at": time.time()}), file=sys.stderr)
