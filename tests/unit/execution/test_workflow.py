"""What the steps of a workflow say to their runner."""

from pathlib import Path

import pytest

from trunkline.execution.workflow import commands, files, matchers
from trunkline.execution.workflow.hashing import hash_files
from trunkline.model.errors import ConfigError


def test_commands_stop_and_go_on() -> None:
    log = commands.Commands()
    assert log.take("::error file=a.py,line=3::it broke%0Ahere") == commands.Command(
        "error", "it broke\nhere", (("file", "a.py"), ("line", "3"))
    )
    assert log.take("text ::error::not at the beginning") is None
    assert log.take("::nosuch::x") is None
    assert log.take("##[group]Title") == commands.Command("group", "Title")
    stopped = log.take("::stop-commands::T0K3N")
    assert stopped is not None
    assert log.take("::error::printed by somebody") is None
    assert log.take("::T0K3N::") is None
    assert log.take("::warning::again") is not None


def test_environment_files() -> None:
    assert files.read_pairs("\ufeffA=1=2\n\nB<<END\nline\n\nEND\nC=\n", "GITHUB_OUTPUT") == (("A", "1=2"), ("B", "line\n"), ("C", ""))
    assert files.read_environment("NODE_OPTIONS=--x\nOK=1\n") == ((("OK", "1"),), ("NODE_OPTIONS",))
    assert files.read_paths("/a\n/b\n") == ("/b", "/a")
    for text, said in (("A<<END\nx", "delimiter not found"), ("plain", "no NAME=value"), ("=x", "a name is missing")):
        with pytest.raises(ConfigError, match=said):
            files.read_pairs(text, "GITHUB_ENV")


def test_a_matcher_over_several_lines_loops_and_gives_up() -> None:
    config = {
        "problemMatcher": [
            {
                "owner": "lint",
                "severity": "warning",
                "pattern": [
                    {"regexp": r"^([^\s].*)$", "file": 1},
                    {
                        "regexp": r"^\s+(\d+):(\d+)\s+(error|warning)\s+(.*)$",
                        "line": 1,
                        "column": 2,
                        "severity": 3,
                        "message": 4,
                        "loop": True,
                    },
                ],
            }
        ]
    }
    (found,) = matchers.read(config)
    told = [
        found.take(line)
        for line in ("a.js", "  1:2  error  bad", "  3:4  warning  \x1b[31mmeh\x1b[0m", "", "b.js", "nothing", "  1:1 error x")
    ]
    assert told[1] == {"file": "a.js", "line": "1", "column": "2", "severity": "error", "message": "bad"}
    assert told[2] is not None
    assert told[2]["message"] == "meh"
    assert (told[0], told[3], told[4], told[5]) == (None, None, None, None)


def test_files_are_hashed_together_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name, text in (("a.lock", "1"), ("deep/b.lock", "2"), ("other.txt", "3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = hash_files(str(tmp_path), "**/*.lock")
    assert len(whole) == 64
    assert hash_files(str(tmp_path), "deep/b.lock", "a.lock") == whole
    assert hash_files(str(tmp_path), "**/*.lock", "!deep/**") == hash_files(str(tmp_path), "a.lock") != whole
    assert hash_files(str(tmp_path), "nosuch") == ""
    (tmp_path / "a.lock").write_text("x")
    assert hash_files(str(tmp_path), "**/*.lock") != whole
