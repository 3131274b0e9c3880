"""delivery.yml: what is read, and what is said about mistakes."""

import pytest

from trunkline.delivery.spec import read

GOOD = """
environments:
  staging: {command: "serve $PORT", port: 8081}
  production:
    branch: main
    install: [pip install -r requirements.txt]
    command: serve $PORT
    port: 8080
    instances: 3
    variables: {DEBUG: 0}
    health: {path: /health, host: example.com, deadline: 30s}
    strategy: {kind: canary, steps: [5, 25], pause: 2m, approvals: 1}
    analysis: {judge: threshold, limit: 1%, no_data: rollback}
"""


def test_a_file_becomes_environments_with_sane_defaults() -> None:
    (staging, production), said = read(GOOD)

    assert said == ()
    assert (staging.strategy.kind, staging.analysis.judge, staging.health.passes) == ("canary", "e1", 3)
    assert (production.strategy.steps, production.strategy.pause, production.analysis.limit) == ((5, 25), 120.0, 0.01)
    assert production.variables == (("DEBUG", "0"),)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("environments: {a: {port: 1}}", 1, "must say `command`"),
        ("environments:\n  a: {command: x, port: 80, helth: {}}", 2, 'no keyword "helth"'),
        ("environments:\n  a:\n    command: x\n    port: 99999", 4, "from 1 to 65535"),
        ("environments:\n  a: {command: x, port: 1}\n  b: {command: x, port: 1}", 3, "is taken by environment 'a'"),
        ("environments: {a: {command: x, port: 1, strategy: {kind: canry}}}", 1, "must be one of"),
        ("environments: {a: {command: x, port: 1, strategy: {steps: [50, 10]}}}", 1, "must grow"),
        ("environments: {a: {command: x, port: 1, analysis: {alpha: 2}}}", 1, "from 0.0001 to 0.5"),
        ("environments: {a: {command: x, port: 1, health: {deadline: soon}}}", 1, "no length of time"),
        ("environments: {a: {command: x, port: 1, gates: {freeze: [always]}}}", 1, "no span of time"),
        ("environments: [", 2, "did not find"),
        ("- a", 1, "must be a mapping"),
        ("", 1, ""),
        ("services: {}", 1, 'no keyword "services"'),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, said: str) -> None:
    environments, found = read(text)

    assert environments == ()
    assert any(d.place.line == line and said in d.message for d in found), found
