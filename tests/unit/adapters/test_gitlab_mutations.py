"""Pipeline files that somebody's cat walked over: whatever the text, the answer is a pipeline or mistakes with places, never an exception."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.model.diagnostics import Severity
from trunkline.pipeline.compile import compile_pipeline
from trunkline.pipeline.plan import plan
from trunkline.testing.builders import Files, an_event
from trunkline.wiring.builtin import dialect

ROOT = Path(__file__).parents[3]
FILES = [
    p.read_text()
    for p in (
        ROOT / ".gitlab-ci.yml",
        *sorted((ROOT / "examples").glob("*/.gitlab-ci.yml")),
        *sorted((ROOT / "tests/dialects").rglob("*.yml")),
    )
]
PIECES = [": ", "- ", "\n", "  ", "&a ", "*a", "!reference [a, b]", "<<: *a", "{", "}", "[", "]", "'", '"', "|", "null", "true", "1e999", "$", "${", "\t", "\x85",
          "include:", "needs:", "rules:\n  - if: ", "parallel: ", "!!python/object:os.system ", "extends: ", "only: ['/usr/bin/env', '/a(/']", "9" * 30, "-1", "~",
          "? ", "%YAML 9.9\n", "--- ", "...\n", "/a(/", "=~", "matrix:\n", "retry:", "timeout: ", "cache:", "exists: ['[z-a]']"]  # fmt: skip
VARIABLES = {"CI_COMMIT_BRANCH": "main", "CI_PIPELINE_SOURCE": "push"}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 1), st.sampled_from(PIECES), st.integers(0, 12)), min_size=1, max_size=6))
def test_a_damaged_file_is_a_pipeline_or_mistakes(text: str, damages: list[tuple[float, str, int]]) -> None:
    for where, piece, removed in damages:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + removed :]

    compiled = compile_pipeline(dialect("gitlab"), Files(**{".gitlab-ci.yml": text}), VARIABLES)

    if compiled.pipeline is None:
        assert any(d.severity is Severity.ERROR and d.message for d in compiled.diagnostics)
    else:
        plan(compiled.pipeline, an_event(), VARIABLES, tuple, "group/project")
