"""Which commands make a Python environment, and what its key depends on."""

from pathlib import Path

import pytest

from trunkline.execution.environments import Recipe, recognise
from trunkline.execution.interpreters import Interpreter
from trunkline.execution.shellwords import chain, split
from trunkline.kit import trees

PYTHON = Interpreter("/usr/bin/python3", "3.11.7")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("flask==3.0\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("pytest==8.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname='x'\n")
    return tmp_path


def of(project: Path, *commands: str) -> Recipe:
    return recognise(commands, PYTHON, str(project), {"CI_PROJECT_DIR": str(project), "V": "1.0"})


@pytest.mark.parametrize(
    ("commands", "steps", "rest"),
    [
        (("pip install -r requirements.txt", "pytest"), 1, ["pytest"]),
        (("python -m pip install --upgrade pip", "pip install flask==$V", "pytest"), 2, ["pytest"]),
        (
            ("python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt && .venv/bin/python -m pytest -q",),
            2,
            [".venv/bin/python -m pytest -q"],
        ),
        (("python -m venv venv", "source venv/bin/activate", "pip install -e .", "make"), 2, ["source venv/bin/activate", "make"]),
        (("pytest", "pip install late"), 0, ["pytest", "pip install late"]),
        (("pip install .", "pytest"), 0, ["pip install .", "pytest"]),
        (("pip install $(cat list)", "pytest"), 0, ["pip install $(cat list)", "pytest"]),
        (("pip install x | tee log",), 0, ["pip install x | tee log"]),
        (("pip install x > log",), 0, ["pip install x > log"]),
        (("pip install -r missing.txt",), 0, ["pip install -r missing.txt"]),
        (("echo begin", "pip install 'x>=1'", "x"), 1, ["echo begin", "x"]),
        (("uv sync", "uv run pytest"), 1, ["uv run pytest"]),
        (("cd sub", "pip install -r requirements.txt"), 0, ["cd sub", "pip install -r requirements.txt"]),
    ],
)
def test_leading_installs_are_recognised(project: Path, commands: tuple[str, ...], steps: int, rest: list[str]) -> None:
    recipe = of(project, *commands)

    assert (len(recipe.steps), recipe.rest) == (steps, rest)


def test_the_key_follows_every_file_that_is_read(project: Path) -> None:
    before = of(project, "pip install -r requirements.txt").key({})
    (project / "more.txt").write_text("pytest==8.1\n")

    assert of(project, "pip install -r requirements.txt").key({}) != before


def test_the_key_follows_interpreter_text_and_index(project: Path) -> None:
    recipe = of(project, "pip install x")
    keys = {
        recipe.key({}),
        recipe.key({"PIP_INDEX_URL": "https://example.invalid/simple"}),
        of(project, "pip install y").key({}),
        recognise(("pip install x",), Interpreter("/usr/bin/python3", "3.12.0"), str(project), {}).key({}),
    }

    assert len(keys) == 4
    assert recipe.key({"OTHER": "x"}) == recipe.key({})


@pytest.mark.parametrize(
    ("command", "pinned"),
    [("pip install -r requirements.txt", True), ("pip install flask", False), ("pip install -e .", False), ("pip install a==1 b==2", True)],
)
def test_unpinned_requirements_are_known(project: Path, command: str, pinned: bool) -> None:
    assert of(project, command).pinned is pinned


def test_shell_words() -> None:
    assert split("pip install 'a b' \"$X/c\" d=$X", {"X": "1"}) == ["pip", "install", "a b", "1/c", "d=1"]
    assert split("a `b`", {}) is None
    assert split("a; b", {}) is None
    assert split("a $UNKNOWN", {}) is None
    assert chain("a 'x && y' && b") == ["a 'x && y'", "b"]


def test_folders_without_files_go_too(tmp_path: Path) -> None:
    (tmp_path / "env" / "old.dist-info" / "licenses").mkdir(parents=True)
    (tmp_path / "env" / "kept").mkdir()
    (tmp_path / "env" / "kept" / "file").write_text("")

    trees.remove_empty(str(tmp_path / "env"))

    assert [p.name for p in (tmp_path / "env").iterdir()] == ["kept"]
