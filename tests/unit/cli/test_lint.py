"""`trunkline lint` for programs: JSON and SARIF."""

import json
from pathlib import Path

import pytest

from trunkline.cli.main import main


def test_sarif_names_rule_level_and_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitlab-ci.yml").write_text("job:\n  script: x\n  scrpt: y\n  dast_configuration: {}\n")

    assert main(["lint", "--sarif"]) == 2

    log = json.loads(capsys.readouterr().out)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    found = {(r["level"], r["locations"][0]["physicalLocation"]["region"]["startLine"], r["message"]["text"]) for r in run["results"]}
    assert any(level == "error" and line == 3 and 'no keyword "scrpt"' in text for level, line, text in found)
    assert any(level == "warning" and line == 4 for level, line, _ in found)
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == ".gitlab-ci.yml"
    assert {r["id"] for r in run["tool"]["driver"]["rules"]} == {r["ruleId"] for r in run["results"]}
