"""The scorer counts what passed, names what failed, and says what it did not try."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conformance.score import main


def test_a_folder_of_cases_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.yml").write_text("job: {script: x}\n")
    (tmp_path / "bad.yml").write_text("job: {scrip: x}\n")
    rows: list[dict[str, Any]] = [
        {"id": "a", "suite": "keywords", "kind": "parse-ok", "input": {"file": "good.yml"}, "expected": {"valid": True}},
        {"id": "b", "suite": "keywords", "kind": "parse-error", "input": {"file": "bad.yml"}, "expected": {"valid": False}},
        {"id": "c", "suite": "keywords", "kind": "parse-ok", "input": {"file": "bad.yml"}, "expected": {"valid": True}},
        {
            "id": "d",
            "suite": "expr",
            "kind": "evaluate",
            "input": {"expression": "$A", "variables": {"A": "1"}},
            "expected": {"truthful": True},
        },
        {"id": "e", "suite": "of-another-time", "kind": "run", "input": {}, "expected": {}},
        {
            "id": "f",
            "suite": "keywords",
            "kind": "parse-ok",
            "input": {"file": "missing.yml"},
            "expected": {"valid": True},
            "disputed": True,
        },
    ]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps({"dialect": "gitlab", **row}) + "\n" for row in rows))

    status = main([str(tmp_path), "--jobs", "1", "--failures", "--json", str(tmp_path / "score.json")])

    said = capsys.readouterr().out
    assert status == 1
    assert "c: refused: bad.yml:1:" in said
    assert re.search(r"of-another-time +not tried: 1", said)
    assert json.loads((tmp_path / "score.json").read_text()) == {
        "suites": {
            "keywords": {"dialect": "gitlab", "tried": 3, "passed": 2, "failed": ["c"]},
            "expr": {"dialect": "gitlab", "tried": 1, "passed": 1, "failed": []},
        }
    }


def test_a_folder_without_cases_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no manifest.jsonl" in capsys.readouterr().err
