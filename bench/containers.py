"""A job in a container, against the same `docker run` by hand: made, started, worked, removed. Needs an engine (DOCKER_HOST) and an image (BENCH_IMAGE)."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.measure import ratio
from trunkline.adapters.containers.docker import Docker
from trunkline.adapters.executors.docker import DockerExecutor
from trunkline.execution.checkout import Sources
from trunkline.execution.work import Assignment, Folders, Workshop, work
from trunkline.kit.processes import Cancel
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import Image, Job
from trunkline.model.runs import Status

ROUNDS = 15
SCRIPT = "echo done"


def main(root: Path) -> None:
    """Rounds of one each, in turns, after one to warm up."""
    image = os.environ.get("BENCH_IMAGE", "debian:12")
    engine = Docker()
    if engine.trouble() or shutil.which("docker") is None or engine.image(image) is None:
        print(f"!! left out: {engine.trouble() or f'there is no docker, or no image {image} (BENCH_IMAGE)'}")
        return
    source = root / "container"
    source.mkdir()
    (source / "file").write_text("content\n")
    shop = Workshop(
        DockerExecutor(engine, "bench"), Folders(*(str(root / n) for n in ("work", "caches", "environments", "artifacts"))), lambda: None
    )
    place = Place("bench", 1, 1)
    job = Job("job", "test", place, script=(SCRIPT,), image=Image(image, place))
    task = Assignment(job, "team/project", Sources(str(source), ("file",)), (), str(root / "trace.log"), str(root / "store"))
    by_hand = ["docker", "run", "--rm", "-v", f"{source}:{source}", "-w", str(source), image, "sh", "-c", SCRIPT]
    times: dict[str, list[float]] = {"docker run": [], "trunkline": []}
    for number in range(ROUNDS + 1):
        began = time.perf_counter()
        subprocess.run(by_hand, check=True, capture_output=True, env={**os.environ, "DOCKER_HOST": engine.address})
        middle = time.perf_counter()
        cancel = Cancel()
        result = work(shop, task, cancel)
        cancel.close()
        end = time.perf_counter()
        if result.status is not Status.PASSED:
            print(f"!! the job failed: {result.message}")
            return
        if number:
            times["docker run"].append(middle - began)
            times["trunkline"].append(end - middle)
    engine.close()
    for name, taken in times.items():
        print(f"{name:12} {sorted(taken)[len(taken) // 2] * 1000:.0f} ms")
    ratio(times, "trunkline", "docker run", 1.3)
