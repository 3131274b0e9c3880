"""Switching traffic between two real releases behind a real HAProxy, under load: failed and stale requests, and how long a switch takes."""

import http.client
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from trunkline.adapters.deploy_targets.process import ProcessTarget
from trunkline.adapters.traffic_routers.haproxy import HaproxyRouter
from trunkline.kit import supervisor
from trunkline.model.deliveries import EnvironmentSpec, Health, Release
from trunkline.model.errors import OutsideError

SWITCHES = 50
APP = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = os.environ["TRUNKLINE_RELEASE"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class _Clients:
    """Eight clients with kept connections; each answer is kept with the moments at which it was asked for and came."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stopping = False
        self.answers: list[tuple[float, float, str]] = []
        self.failed: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self._ask) for _ in range(8)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.stopping:
            asked = time.perf_counter()
            try:
                connection.request("GET", "/")
                reply = connection.getresponse()
                body = reply.read().decode()
                if reply.status == 200:
                    self.answers.append((asked, time.perf_counter(), body))
                else:
                    self.failed[str(reply.status)] += 1
            except (OSError, http.client.HTTPException) as problem:
                self.failed[type(problem).__name__] += 1
                connection.close()
            time.sleep(0.002)
        connection.close()


def main(root: Path) -> None:
    """Measure and print."""
    router = HaproxyRouter()
    try:
        router.find()
    except OutsideError as missing:
        print(f"\nswitches: left out: {missing.message} ({missing.hint})", file=sys.stderr)
        return
    folder = str(root / "switch")
    releases = [Release(n, "bench", n, str(n) * 40) for n in (1, 2)]
    for release in releases:
        app = Path(folder, "releases", str(release.number), "app")
        app.mkdir(parents=True)
        (app / "app.py").write_text(APP)
    spec = EnvironmentSpec("bench", f"exec {sys.executable} app.py", instances=2, health=Health())
    target = ProcessTarget(f"{folder}/ports.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        for release in releases:
            target.ensure(folder, spec, release, 1)
        while not all(i.ready for release in releases for i in target.observe(folder, spec, release)):
            time.sleep(0.05)
        addresses = {r.number: [i.address for i in target.observe(folder, spec, r)] for r in releases}
        router.ensure(folder, port)
        router.set_weights(folder, {1: (100, addresses[1]), 2: (0, addresses[2])})
        clients = _Clients(port)
        for thread in clients.threads:
            thread.start()
        time.sleep(0.5)
        took, switched = [], []
        for i in range(SWITCHES):
            new, old = (2, 1) if i % 2 == 0 else (1, 2)
            began = time.perf_counter()
            router.set_weights(folder, {new: (100, addresses[new]), old: (0, addresses[old])})
            switched.append((began, time.perf_counter(), str(new)))
            took.append(switched[-1][1] - began)
            time.sleep(0.1)
        clients.stopping = True
        for thread in clients.threads:
            thread.join()
    finally:
        supervisor.stop_below(folder)
    stale, last = 0, []
    for i, (began, done, name) in enumerate(switched):
        until = switched[i + 1][0] if i + 1 < len(switched) else float("inf")
        stale += sum(done < asked < until and body != name for asked, _, body in clients.answers)
        late = [came - began for asked, came, body in clients.answers if began <= came < until and body != name]
        last.append(max(late, default=0.0))
    print(f"\nswitches under load ({SWITCHES}, 8 clients, {len(clients.answers)} requests)")
    print(
        f"  failed {sum(clients.failed.values())}, stale {stale}   goals 0 and 0   {'met' if not clients.failed and not stale else 'MISSED'}"
    )
    worst = max(last) * 1000
    print(f"  a switch: p50 {statistics.median(took) * 1000:.1f} ms, longest {max(took) * 1000:.1f} ms")
    print(
        f"  from the decision to the last answer of the old release: p50 {statistics.median(last) * 1000:.0f} ms, longest {worst:.0f} ms   goal 250   {'met' if worst <= 250 else 'MISSED'}"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as where:
        main(Path(where))
