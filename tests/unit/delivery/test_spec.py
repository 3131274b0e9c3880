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


def test_a_compose_project_is_replaced_in_its_place() -> None:
    ((environment,), said) = read("environments: {a: {target: compose, service: web, container_port: 80, port: 8080}}")

    assert said == ()
    assert (environment.strategy.kind, environment.service, environment.compose_file) == ("recreate", "web", "")


MORE = """
environments:
  review/*: {command: serve, auto: true, expire: 3 days}
  production:
    command: serve $PORT
    port: 8080
    overlap: queue
    hooks: {before: ./migrate, smoke: ./smoke, after: ./tell, failed: ./tell, timeout: 1m}
    strategy: {kind: canary, approvals: 1, approvers: [ada, bob], header: X-Beta, value: yes-please}
    analysis:
      latency: 250ms
      false_alarms: 100%
      metrics:
        - {name: checkout, requests: 'orders_total', bad: 'orders_total{state="lost"}'}
        - {name: slow orders, histogram: order_seconds, slower: 2s, weight: 2}
        - {name: upstream, source: prometheus, url: "http://127.0.0.1:9090", requests: a, bad: b, interval: 15s}
"""


def test_everything_that_can_be_said_is_read() -> None:
    (review, production), said = read(MORE)

    assert said == ()
    assert (review.name, review.port, review.expire) == ("review/*", 0, 3 * 86400.0)
    assert (production.hooks.smoke, production.hooks.timeout, production.overlap) == ("./smoke", 60.0, "queue")
    assert (production.strategy.header, production.strategy.value, production.strategy.approvers) == (
        "X-Beta",
        "yes-please",
        ("ada", "bob"),
    )
    assert (production.analysis.latency, production.analysis.false_alarms) == (0.25, 1.0)
    assert [(m.name, m.source, m.slower, m.interval) for m in production.analysis.metrics] == [
        ("checkout", "app", 0.0, 0.0), ("slow orders", "app", 2.0, 0.0), ("upstream", "prometheus", 0.0, 15.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "latency"), [("auto", 0.0), ("off", None), ("1s", 1.0)])
def test_latency_is_found_said_or_left_alone(said: str, latency: float | None) -> None:
    ((environment,), found) = read(f"environments: {{a: {{command: x, port: 1, analysis: {{latency: {said}}}}}}}")

    assert found == ()
    assert environment.analysis.latency == latency


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("environments:\n  review/*: {command: x, port: 80}", 2, "gets a port of its own"),
        ("environments: {a: {command: x, port: 1, image: y}}", 1, "`image` does not go with target process"),
        ("environments: {a: {target: docker, port: 1}}", 1, "must say `container_port`"),
        ("environments: {a: {target: docker, container_port: 1, port: 1, service: web}}", 1, "`service` does not go with target docker"),
        ("environments: {a: {target: compose, container_port: 1, port: 1}}", 1, "must say `service`"),
        (
            "environments: {a: {target: compose, service: web, container_port: 1, port: 1, instances: 2}}",
            1,
            "`instances` does not go with target compose",
        ),
        (
            "environments: {a: {target: compose, service: web, container_port: 1, port: 1, strategy: {kind: canary}}}",
            1,
            "strategy canary does not go with it",
        ),
        ("environments:\n  ../up: {command: x, port: 80}", 2, "characters that can't stand there"),
        ("environments: {a: {command: x, port: 1, strategy: {header: A, cookie: b}}}", 1, "by a header or by a cookie"),
        ("environments: {a: {command: x, port: 1, strategy: {header: 'a b'}}}", 1, "can't stand there"),
        ("environments: {a: {command: x, port: 1, strategy: {approvals: 2, approvers: [ada]}}}", 1, "can't come from 1"),
        ("environments: {a: {command: x, port: 1, analysis: {metrics: [{name: m, requests: a}]}}}", 1, "needs `requests` and `bad`"),
        ("environments: {a: {command: x, port: 1, analysis: {metrics: [{requests: a, bad: b}]}}}", 1, "a name of its own"),
        ("environments: {a: {command: x, port: 1, analysis: {metrics: [{name: m, histogram: a}]}}}", 1, "goes with source app"),
        (
            "environments: {a: {command: x, port: 1, analysis: {metrics: [{name: m, source: prometheus, requests: a, bad: b}]}}}",
            1,
            "goes with `url`",
        ),
        ("environments: {a: {command: x, port: 1, analysis: {metrics: {}}}}", 1, "must be a list"),
        ("environments: {a: {command: x, port: 1, overlap: never}}", 1, "must be one of"),
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
