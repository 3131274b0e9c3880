"""`trunkline run` where only a real process will do: ^C, terminals, environments with real pip and uv."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import commit, project

RUN = [sys.executable, "-m", "trunkline", "run"]


def _processes(mark: str) -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    mark = f"43{os.getpid()}"
    folder = project(
        tmp_path / "p",
        f"a: {{script: ['trap \"\" TERM INT; sleep {mark} & setsid sleep {mark} & sleep {mark}']}}\nb: {{stage: deploy, script: [echo]}}\n",
    )
    running = subprocess.Popen(RUN, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    for _ in range(100):
        if len(_processes(mark)) >= 3:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)

    out, _ = running.communicate(timeout=20)

    assert running.returncode == 130
    assert b"interrupted" in out
    assert _processes(mark) == []


def test_an_environment_is_built_once_reused_and_never_spoiled(tmp_path: Path) -> None:
    pipeline = """
test:
  script:
    - pip install -r requirements.txt
    - python -c "import six; print('six', six.__version__)"
    - python -c "import six, pathlib; p = pathlib.Path(six.__file__); print('clean' if 'spoiled' not in p.read_text() else 'dirty'); p.write_text(p.read_text() + '# spoiled')"
    - pip --version
"""
    folder = project(tmp_path / "p", pipeline, **{"requirements.txt": "six==1.16.0\n"})

    def run() -> str:
        done = subprocess.run([*RUN, "-v"], cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first, second, third = run(), run(), run()

    assert "six 1.16.0" in first
    assert " built in " in first
    assert "reused, saved" in second
    assert "│ clean" in second
    assert "│ clean" in third
    assert "│ dirty" not in second + third
    commit(folder, pipeline.split('    - python -c "import six, pathlib')[0] + "    - pip --version\n")
    run()
    assert "reused, saved" in run()
    (folder / "requirements.txt").write_text("six==1.17.0\n")
    assert "six 1.17.0" in run()


def test_two_jobs_at_the_same_time_do_not_share_the_files_of_their_environment(tmp_path: Path) -> None:
    install = "pip install -r requirements.txt"
    change = "p = pathlib.Path(six.__file__); f = p.open('r+'); f.seek(0, 2); f.write('# changed in place'); f.close()"
    pipeline = f"""
warm: {{stage: build, script: [{install}, pip --version]}}
writer:
  script:
    - {install}
    - python -c "import six, pathlib; {change}"
    - touch {tmp_path}/changed; for i in $(seq 200); do test -e {tmp_path}/read && break; sleep 0.05; done
reader:
  script:
    - {install}
    - for i in $(seq 200); do test -e {tmp_path}/changed && break; sleep 0.05; done
    - python -c "import six, pathlib; print('clean' if 'changed in place' not in pathlib.Path(six.__file__).read_text() else 'dirty')"
    - touch {tmp_path}/read
"""
    folder = project(tmp_path / "p", pipeline, **{"requirements.txt": "six==1.16.0\n"})

    done = subprocess.run(
        [*RUN, "-v", "-j", "2"], cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"}
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "changed").exists()
    assert "│ clean" in done.stdout
    assert "│ dirty" not in done.stdout


def test_a_terminal_shows_a_line_per_job(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "good: {script: [echo visible, sleep 0.3]}\nbad: {script: ['echo reason; exit 9']}\n")
    parent, child = pty.openpty()
    running = subprocess.Popen(RUN, cwd=folder, stdout=child, stderr=child, stdin=child, env={**os.environ, "TERM": "xterm"})
    os.close(child)
    out = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        out += piece
    os.close(parent)

    assert running.wait(20) == 1
    text = out.decode()
    assert "\x1b[32m✓\x1b[0m good" in text
    assert "reason" in text
    assert "exit code 9" in text
    assert "1 passed, 1 failed" in text


def test_two_hundred_thousand_lines_keep_memory_flat(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "log: {script: [\"seq -f 'line %08.0f of a log' 1 200000\"]}\nsmall: {script: [echo]}\n")
    script = "import resource, sys; from trunkline.cli.main import main; code = main(sys.argv[1:]); print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"

    def peak(job: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", script, "run", job], cwd=folder, capture_output=True, text=True, timeout=60, check=True
        )
        return int(done.stdout.split("peak ")[1])

    peak("small")
    assert peak("log") - peak("small") < 8 * 1024


def test_limits_hold_in_a_local_run_too(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", "job:\n  script: head -c 5000000 /dev/zero > big\n")
    command = [*RUN, "--quiet"]

    free = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    bound = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "TRUNKLINE_JOB_FILE_SIZE": "1M"}
    )
    wrong = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "TRUNKLINE_JOB_MEMORY": "much"}
    )

    assert (free.returncode, bound.returncode, wrong.returncode) == (0, 1, 2)
    assert "File too large" in bound.stdout
    assert "job_memory can't be 'much'" in wrong.stderr
