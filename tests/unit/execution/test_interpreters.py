"""Which Python a job gets, and when the kept answer is asked for again."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trunkline.execution import interpreters
from trunkline.kit import processes


def _python(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "python3").symlink_to(program)
    return folder


def test_the_kept_answer_holds_until_another_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    asking = processes.output

    def counted(argv: list[str]) -> tuple[int, bytes]:
        asked.append(argv[0])
        return asking(argv)

    monkeypatch.setattr(processes, "output", counted)
    real = os.path.realpath(sys.executable)
    monkeypatch.setenv("PATH", f"{_python(tmp_path / 'one', real)}:{os.environ['PATH']}")
    kept = str(tmp_path / "kept")
    first = interpreters.default_interpreter(kept)
    assert interpreters.default_interpreter(kept) == first
    assert len(asked) == 1
    assert os.path.samefile(first.path, real)
    monkeypatch.setenv("PATH", f"{_python(tmp_path / 'two', real)}:{os.environ['PATH']}")
    interpreters.default_interpreter(kept)
    assert len(asked) == 2
    (tmp_path / "kept").write_bytes(b"spoiled")
    assert interpreters.default_interpreter(kept) == first
    assert len(asked) == 3


def test_a_wrapper_with_rules_of_its_own_is_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "python3"
    wrapper.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    interpreters.default_interpreter(str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_jobs_that_ask_at_the_same_time_all_get_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, together = interpreters._asked, threading.Barrier(16)

    def asked() -> interpreters.Interpreter:
        found = asking()
        together.wait(30)
        return found

    monkeypatch.setattr(interpreters, "_asked", asked)
    kept = str(tmp_path / "python3")
    with ThreadPoolExecutor(16) as pool:
        (answer,) = set(pool.map(lambda _: interpreters.default_interpreter(kept), range(16)))

    assert interpreters.default_interpreter(kept) == answer
    assert os.listdir(tmp_path) == ["python3"]
