"""`python3 dev.py bench [NAME...]`: see bench/__init__.py. Names: run scale path plan workflows log artifact files python server switch judges containers fleet."""

import shutil
import sys
import tempfile
from pathlib import Path

from bench import containers, fixtures, fleet, judges, server, switch
from bench.measure import BIN, OURS, peers, ratio, rounds

GCL = "gitlab-ci-local"


def _both(folder: Path, found: dict[str, str]) -> dict[str, tuple[str, Path]]:
    return {"trunkline": (OURS, folder), **{name: (command, folder) for name, command in found.items()}}


def run(root: Path, found: dict[str, str]) -> None:
    """One job that does nothing: what the tool itself costs."""
    times = rounds("run, 1 job", _both(fixtures.flat(root / "j1", 1), found), 11)
    ratio(times, "trunkline", "act", 1.5)
    ratio(times, "trunkline", GCL, 0.15)


def scale(root: Path, found: dict[str, str]) -> None:
    """Twenty and a hundred jobs that do nothing."""
    for count, goal in ((20, 0.35), (100, 0.15)):
        times = rounds(f"run, {count} jobs", _both(fixtures.flat(root / f"j{count}", count), found), 5)
        ratio(times, "trunkline", "act", goal)


def path(root: Path, found: dict[str, str]) -> None:
    """A critical path of 3.0 s on two slots; the bound is to sleep as long."""
    folder = fixtures.critical_path(root / "dag")
    times = rounds(
        "critical path of 3.0 s", {"bound": ("sleep 3", folder), **_both(folder, found), "trunkline": (OURS + " -j 2", folder)}, 3
    )
    ratio(times, "trunkline", "bound", 1.10)


def plan(root: Path, found: dict[str, str]) -> None:
    """300 jobs with includes, extends, needs, rules, and 200 combinations of a matrix: listed. Then 300 plain jobs, against act, with the plan kept."""
    for name, folder in (("300 jobs", fixtures.big(root / "big")), ("200 combinations", fixtures.combinations(root / "matrix"))):
        contestants = {"trunkline": (OURS + " --list -C .", folder)}  # with -C no kept list is shown: the rules are evaluated
        if GCL in found:
            contestants[GCL] = (found[GCL] + " --list", folder)
        ratio(rounds(f"{name} listed", contestants, 7), "trunkline", GCL, 0.15)
    flat = fixtures.flat(root / "flat300", 300)
    listed = {"trunkline": (OURS + " --list", flat)}
    if "act" in found:
        listed["act"] = (f"{found['act'].split()[0]} -l", flat)
    ratio(rounds("300 plain jobs listed, kept plan", listed, 11), "trunkline", "act", 1.0)


def workflows(root: Path, found: dict[str, str]) -> None:
    """GitHub workflows as they are: twenty jobs that do nothing; a matrix of 200 listed with everything evaluated, and against a dry run of act."""
    flat = fixtures.only_github(fixtures.flat(root / "workflow20", 20))
    ratio(rounds("workflow, 20 jobs", _both(flat, {"act": found["act"]} if "act" in found else {}), 7), "trunkline", "act", 0.35)
    if "act" not in found:
        return
    folder = fixtures.only_github(fixtures.workflow_matrix(root / "workflow200"))
    act = found["act"].split()[0]
    kept = {"trunkline": (OURS + " --list", folder), "act": (f"{act} -l", folder)}
    ratio(rounds("workflow, matrix of 200 listed, nothing changed", kept, 11), "trunkline", "act", 2.0)
    dry = {"trunkline": (OURS + " --list -C .", folder), "act": (f"{found['act']} -n", folder)}  # with -C no kept list is shown
    ratio(rounds("workflow, matrix of 200 planned, against act -n", dry, 5), "trunkline", "act", 0.05)


def log(root: Path, found: dict[str, str]) -> None:
    """200,000 lines; the bound writes them to a file."""
    command = "seq -f 'line %08.0f of a build log that looks like a compiler or test runner talking' 1 200000"
    folder = fixtures.flat(root / "log", 1, command)
    times = rounds(
        "200,000 log lines", {"bound": (f"{command} > /dev/null", folder), **_both(folder, found), "trunkline": (OURS + " -v", folder)}, 5
    )
    ratio(times, "trunkline", "act", 0.5)


def artifact(root: Path, found: dict[str, str]) -> None:
    """200 MB to a later job; act needs its artifact server and is left out."""
    folder = fixtures.artifact(root / "artifact")
    contestants = {k: v for k, v in _both(folder, found).items() if k != "act"}
    ratio(rounds("200 MB artifact", contestants, 3), "trunkline", GCL, 0.8)


def files(root: Path, found: dict[str, str]) -> None:
    """A job's own copy of 20,000 files, not the first time; the bound is a copy of hard links."""
    folder = fixtures.many_files(root / "files")
    copy = root / "copy"

    def prepare(_: str) -> None:
        shutil.rmtree(copy, ignore_errors=True)

    times = rounds("own copy of 20,000 files", {"cp -al": (f"cp -al . {copy}", folder), "trunkline": (OURS, folder)}, 5, prepare)
    ratio(times, "trunkline", "cp -al", 1.5)


def python(root: Path, found: dict[str, str]) -> None:
    """The Python job everyone runs: second run with a warm environment, and the first."""
    folder = fixtures.python_job(root / "python")
    uv = BIN / "uv"
    bare = {
        "bare pip": (f"bash -c 'rm -rf .venv && {_job('python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt')}'", folder),
        "bare uv": (f"bash -c 'rm -rf .venv && {_job(f'{uv} venv -q .venv && {uv} pip install -q -p .venv -r requirements.txt')}'", folder),
    }
    times = rounds("python job, later runs", {**bare, "trunkline": (OURS, folder)}, 3)
    ratio(times, "trunkline", "bare pip", 0.15)
    ratio(times, "trunkline", "bare uv", 0.5)
    times = rounds("python job, environment built anew", {"bare pip": bare["bare pip"], "trunkline": (OURS + " --fresh", folder)}, 3)
    ratio(times, "trunkline", "bare pip", 0.4)


def _job(install: str) -> str:
    return f"{install} && .venv/bin/python -m pytest -q"


BENCHMARKS = {f.__name__: f for f in (run, scale, path, plan, workflows, log, artifact, files, python)}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [n for n in names if n not in BENCHMARKS and n not in ("server", "switch", "judges", "containers", "fleet")]
    if unknown:
        print(
            f"no benchmark named {unknown[0]}; there are {', '.join(BENCHMARKS)}, server, switch, judges, containers, fleet",
            file=sys.stderr,
        )
        return 2
    found = peers() if not names or set(names) & set(BENCHMARKS) else {}
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as root:
        for name, benchmark in BENCHMARKS.items():
            if not names or name in names:
                benchmark(Path(root), found)
        if not names or "server" in names:
            server.main(Path(root))
        if not names or "switch" in names:
            switch.main(Path(root))
        if not names or "judges" in names:
            judges.main()
        if not names or "containers" in names:
            containers.main(Path(root))
        if not names or "fleet" in names:
            fleet.main(Path(root), [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
