"""Dialect tests are files: ok/*.yml give no errors; err/X.yml give exactly the lines of err/X.out, as `trunkline lint` prints them.

To accept what the compiler says now: TRUNKLINE_ACCEPT=1 python3 dev.py test tests/dialects, then read the difference.
"""

import os
from pathlib import Path

import pytest

from trunkline.cli import show
from trunkline.cli.lint import Folder
from trunkline.model.diagnostics import Severity
from trunkline.pipeline.compile import compile_pipeline
from trunkline.pipeline.variables import event_variables
from trunkline.testing.builders import an_event
from trunkline.wiring.builtin import dialect

HERE = Path(__file__).parent
OK = sorted((HERE / "ok").glob("*.yml"))
ERR = sorted((HERE / "err").glob("*.yml"))


@pytest.mark.parametrize("path", OK, ids=lambda p: p.stem)
def test_ok(path: Path) -> None:
    compiled = compile_pipeline(dialect("gitlab"), Folder(str(path.parent)), event_variables(an_event(), "g/p"), path.name)

    assert [d for d in compiled.diagnostics if d.severity is Severity.ERROR] == []
    assert compiled.pipeline is not None


@pytest.mark.parametrize("path", ERR, ids=lambda p: p.stem)
def test_err(path: Path) -> None:
    folder = Folder(str(path.parent))
    compiled = compile_pipeline(dialect("gitlab"), folder, event_variables(an_event(), "g/p"), path.name)
    said = "".join(show.diagnostic(d, show.Lines(folder.read), colour=False) + "\n" for d in compiled.diagnostics)
    golden = path.with_suffix(".out")
    if os.environ.get("TRUNKLINE_ACCEPT"):
        golden.write_text(said)

    assert said == golden.read_text()
    assert compiled.pipeline is None


def test_every_keyword_of_the_dialect_stands_in_a_test_file() -> None:
    from trunkline.adapters.dialects.gitlab import keywords

    text = "\n".join(p.read_text() for p in (*OK, *ERR))

    missing = sorted(k for k in keywords.JOB | keywords.GLOBAL if f"{k}:" not in text)
    assert missing == []
