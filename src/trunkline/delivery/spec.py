"""Reads delivery.yml: what a repository says about its environments. Every mistake with its place; nothing is guessed. For example:

environments:
  production:
    auto: true                         # what is green is deployed by itself,
    branch: main                       # on this branch only
    install: pip install -r requirements.txt
    command: gunicorn --bind 127.0.0.1:$PORT parcels.app:app
    port: 8080                         # where people come in
    health: {path: /health, host: parcels.example.com}
    strategy: {kind: canary, steps: [10, 50], pause: 60s}
    analysis: {judge: e1}
    hooks: {smoke: ./smoke.sh}
  review/*:                            # one for each branch, as review/BRANCH, at an address of its own
    auto: true
    expire: 3 days
    command: gunicorn --bind 127.0.0.1:$PORT parcels.app:app
"""

import re
from collections.abc import Callable
from typing import Any

from trunkline.delivery.gates import is_span
from trunkline.delivery.judges import JUDGES
from trunkline.delivery.strategies import STRATEGIES
from trunkline.kit import yamltree
from trunkline.kit.words import bytes_of
from trunkline.kit.yamltree import Node
from trunkline.model.deliveries import ERRORS, Analysis, EnvironmentSpec, Gates, Health, Hooks, Metric, Strategy, Tls
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.reading import Mistakes

FILE = "delivery.yml"
TARGETS, ROUTERS = ("process", "docker", "compose"), ("haproxy", "envoy", "traefik")
NO_DATA = ("pause", "rollback", "continue")
SOURCES, OVERLAPS = ("app", "prometheus"), ("supersede", "queue")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*(/\*)?")


class Reader:
    """Reads one kind of value, and knows how JSON Schema describes it."""

    def __init__(self, read: Callable[[Mistakes, Node, str], Any], schema: dict[str, Any]) -> None:
        self.read, self.schema = read, schema

    def __call__(self, m: Mistakes, node: Node, where: str) -> Any:
        """Return the value of a node; a mistake is noted, and a harmless value returned."""
        return self.read(m, node, where)


def _part(make: Callable[..., Any], readers: dict[str, Reader]) -> Reader:
    """Return a reader of a mapping with these keys; what is not said keeps its default."""

    def read(m: Mistakes, node: Node, where: str) -> Any:
        parts = m.mapping(node, where, readers)
        return make(**{name: readers[name](m, value, f"{where}:{name}") for name, value in parts.items() if name in readers})

    return Reader(read, _schema_of(readers))


def _schema_of(readers: dict[str, Reader], needed: tuple[str, ...] = ()) -> dict[str, Any]:
    schema = {"type": "object", "properties": {name: r.schema for name, r in readers.items()}, "additionalProperties": False}
    return {**schema, "required": list(needed)} if needed else schema


def _number(low: float, high: float) -> Reader:
    def read(m: Mistakes, node: Node, where: str) -> float:
        value = node.value
        if isinstance(value, str) and value.endswith("%"):
            try:
                value = float(value[:-1]) / 100
            except ValueError:
                value = node.value
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        m.error(
            node,
            where,
            f"{where} must be a number from {low:g} to {high:g}, this is {node.value if isinstance(node.value, (str, int, float)) else node.kind}",
        )
        return low

    return Reader(read, {"type": ["number", "string"], "description": f"from {low:g} to {high:g}; as a fraction, or with % behind it"})


def _whole(low: int, high: int) -> Reader:
    return Reader(lambda m, node, where: m.integer(node, where, low, high), {"type": "integer", "minimum": low, "maximum": high})


def _one_of(known: Any) -> Reader:
    return Reader(lambda m, node, where: m.choice(node, where, known) or next(iter(known)), {"enum": list(known)})


def _steps(m: Mistakes, node: Node, where: str) -> tuple[int, ...]:
    items = node.value if isinstance(node.value, list) else []
    steps = tuple(m.integer(item, where, 1, 99) for item in items)
    if not steps:
        m.error(node, where, f"{where} must be a list of percentages from 1 to 99")
    elif list(steps) != sorted(set(steps)):
        m.error(node, where, f"{where} must grow from step to step", "for example [5, 25, 50]")
    return steps


def _variables(m: Mistakes, node: Node, where: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, m.string(value, f"{where}:{name}")) for name, value in m.mapping(node, where).items())


def _short_span(m: Mistakes, node: Node, where: str) -> float:
    """Read a span that may be in milliseconds."""
    match = _MILLISECONDS.fullmatch(node.value) if isinstance(node.value, str) else None
    return float(match[1]) / 1000 if match else m.span(node, where)


def _size(m: Mistakes, node: Node, where: str) -> int:
    size = bytes_of(str(node.value)) if isinstance(node.value, (str, int)) and not isinstance(node.value, bool) else None
    if size is None or (0 < size < 16 << 20):
        m.error(node, where, f"{where} must be a size of at least 16M, this is {node.value}", "for example 500M or 2G")
    return size or 0


_MILLISECONDS = re.compile(r"(\d+(?:\.\d+)?) ?ms")
_STRING = {"type": "string"}
_TIME = {"type": ["string", "number"], "description": "a length of time such as 30s, 5 min, 2 days; a number is seconds"}
_LIST = {"type": ["string", "array"], "items": _STRING}
_TEXT = Reader(Mistakes.string, _STRING)
_SPAN = Reader(Mistakes.span, _TIME)
_FLAG = Reader(Mistakes.boolean, {"type": "boolean"})
_LINES = Reader(Mistakes.strings, _LIST)


def _freeze(m: Mistakes, node: Node, where: str) -> tuple[str, ...]:
    spans = m.strings(node, where)
    for span in spans:
        if not is_span(span):
            m.error(
                node,
                where,
                f"{where}: {span!r} is no span of time",
                "for example fri 16:00 - mon 08:00, 22:00 - 06:00 or 2026-12-24 - 2026-12-27",
            )
    return spans


def _token(m: Mistakes, node: Node, where: str) -> str:
    """Read the name or value of a header or cookie."""
    text = m.string(node, where)
    if text and not _TOKEN_TEXT.fullmatch(text):
        m.error(node, where, f"{where}: {text!r} has characters that can't stand there", "letters, digits, . _ ~ and -")
    return text


def _latency(m: Mistakes, node: Node, where: str) -> float | None:
    if node.value in ("off", False):
        return None
    return 0.0 if node.value in ("auto", True) else _short_span(m, node, where)


def _address(m: Mistakes, node: Node, where: str) -> str:
    text = m.string(node, where)
    if text and not text.startswith(("http://", "https://")):
        m.error(node, where, f"{where}: {text!r} is no address", "for example http://127.0.0.1:9090")
    return text


def _metrics(m: Mistakes, node: Node, where: str) -> tuple[Metric, ...]:
    if not isinstance(node.value, list):
        m.error(node, where, f"{where} must be a list of metrics", "each with name, source, requests and bad (or histogram and slower)")
        return ()
    found: list[Metric] = []
    for item in node.value:
        metric = _part(Metric, _METRIC)(m, item, where)
        if not metric.name or metric.name in (ERRORS, *(f.name for f in found)):
            m.error(
                item, where, f"{where}: each metric must have a name of its own" + (f", {metric.name!r} is taken" if metric.name else "")
            )
        if metric.histogram:
            if metric.source != "app" or not metric.slower or metric.requests or metric.bad:
                m.error(
                    item,
                    where,
                    f"{where}: a histogram goes with source app and `slower`",
                    "for example histogram: http_seconds, slower: 250ms",
                )
        elif not (metric.requests and metric.bad):
            m.error(item, where, f"{where}: a metric needs `requests` and `bad`, or `histogram` and `slower`")
        if (metric.source == "prometheus") != bool(metric.url):
            m.error(item, where, f"{where}: source prometheus goes with `url`", "for example url: http://127.0.0.1:9090")
        found.append(metric)
    return tuple(found)


_TOKEN_TEXT = re.compile(r"[A-Za-z0-9._~-]+")
_SHORT_SPAN = Reader(_short_span, _TIME)
_ADDRESS = Reader(_address, {**_STRING, "format": "uri"})
_FREEZE = Reader(_freeze, _LIST)
_STEPS = Reader(_steps, {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 99}, "minItems": 1})
_TOKEN = Reader(_token, {**_STRING, "pattern": "^[A-Za-z0-9._~-]+$"})
_LATENCY = Reader(_latency, {**_TIME, "description": "auto, off, or from when on an answer is slow"})
_VARIABLES = Reader(_variables, {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
_SIZE = Reader(_size, {"type": ["string", "integer"], "description": "bytes, for example 500M"})
_TLS: dict[str, Reader] = {"domains": _LINES, "email": _TEXT, "directory": _ADDRESS}
_METRIC: dict[str, Reader] = {
    "name": _TEXT, "source": _one_of(SOURCES), "requests": _TEXT, "bad": _TEXT, "histogram": _TEXT, "slower": _SHORT_SPAN, "path": _TEXT, "url": _ADDRESS,
    "interval": _SPAN, "weight": _number(0.001, 1000), "tolerance": _number(1, 100), "acceptable": _number(1, 100), "margin": _number(0, 1),
}  # fmt: skip
_METRICS = Reader(_metrics, {"type": "array", "items": _schema_of(_METRIC, ("name",))})
_HOOKS: dict[str, Reader] = {"before": _TEXT, "smoke": _TEXT, "after": _TEXT, "failed": _TEXT, "timeout": _SPAN}
_GATES: dict[str, Reader] = {"green": _FLAG, "wait": _SPAN, "freeze": _FREEZE}
_HEALTH: dict[str, Reader] = {
    "path": _TEXT, "host": _TEXT, "status": _whole(100, 599), "passes": _whole(1, 100), "deadline": _SPAN,
}  # fmt: skip
_STRATEGY: dict[str, Reader] = {
    "kind": _one_of(STRATEGIES), "steps": _STEPS, "pause": _SPAN, "analysis": _FLAG, "approvals": _whole(0, 100),
    "approvers": _LINES, "header": _TOKEN, "cookie": _TOKEN, "value": _TOKEN,
}  # fmt: skip
_ANALYSIS: dict[str, Reader] = {
    "judge": _one_of(JUDGES), "alpha": _number(0.0001, 0.5), "tolerance": _number(1, 100), "acceptable": _number(1, 100), "margin": _number(0, 1),
    "ceiling": _number(0.0001, 1), "limit": _number(0, 1e9), "window": _SPAN, "no_data": _one_of(NO_DATA),
    "latency": _LATENCY, "metrics": _METRICS, "false_alarms": _number(0, 1),
}  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the JSON Schema of delivery.yml, for editors; `read` says more, and better."""
    environment = _schema_of(_ENVIRONMENT)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE, "type": "object", "required": ["environments"],
        "additionalProperties": False, "properties": {"environments": {"type": "object", "additionalProperties": environment}},
    }  # fmt: skip


_ENVIRONMENT: dict[str, Reader] = {
    "image": _TEXT, "container_port": _whole(1, 65535), "service": _TEXT, "compose_file": _TEXT,
    "command": _TEXT, "target": _one_of(TARGETS), "router": _one_of(ROUTERS), "install": _LINES, "variables": _VARIABLES,
    "instances": _whole(1, 64), "memory": _SIZE, "port": _whole(1, 65535), "branch": _TEXT, "auto": _FLAG, "health": _part(Health, _HEALTH),
    "gates": _part(Gates, _GATES), "strategy": _part(Strategy, _STRATEGY), "analysis": _part(Analysis, _ANALYSIS), "keep": _whole(1, 1000),
    "drain": _SPAN, "stop_timeout": _SPAN, "bake": _SPAN, "rollback_safe": _FLAG, "hooks": _part(Hooks, _HOOKS), "expire": _SPAN, "metrics": _TEXT,
    "tls": _part(Tls, _TLS),
    "overlap": _one_of(OVERLAPS),
}  # fmt: skip


_STARTS: dict[str, tuple[tuple[str, str], ...]] = {  # what each target must be told, and why
    "process": (("command", "what starts one instance; it must listen on 127.0.0.1:$PORT"),),
    "docker": (("container_port", "where an instance listens in its container"),),
    "compose": (("service", "the one that people reach"), ("container_port", "where it listens in its container")),
}
_NOT_WITH = {
    "process": ("image", "container_port", "service", "compose_file"),
    "docker": ("install", "service", "compose_file"),
    "compose": ("install", "image", "command", "instances", "memory"),
}


def read(text: str, file: str = FILE) -> tuple[tuple[EnvironmentSpec, ...], tuple[Diagnostic, ...]]:
    """Return the environments that a file declares, and what is wrong with it. With a mistake there are no environments."""
    m = Mistakes()
    try:
        documents = yamltree.read(text, file)
    except yamltree.YamlMistake as mistake:
        place = Place(file, mistake.line, mistake.column)
        return (), (Diagnostic(Severity.ERROR, "yaml", mistake.message, place, mistake.hint),)
    if len(documents) != 1:
        return (), (Diagnostic(Severity.ERROR, "delivery", f"{file} must hold one document, with `environments`", Place(file)),)
    top = m.mapping(documents[0], file, ("environments",))
    found: list[EnvironmentSpec] = []
    ports: dict[object, str] = {}
    if "environments" not in top:
        m.error(documents[0], "delivery", f"{file} must declare `environments`")
    for name, node in m.mapping(top["environments"], "environments").items() if "environments" in top else ():
        where = f'environment "{name}"'
        parts = m.mapping(node, where, _ENVIRONMENT)
        if not _NAME.fullmatch(name):
            m.error(
                node,
                where,
                f"{where}: the name has characters that can't stand there",
                "letters, digits, . _ - and /; review/* is one for each branch",
            )
        one_for_each = name.endswith("/*")
        given = node.value.get("target") if isinstance(node.value, dict) else None
        target = str(given.value) if given is not None and given.value in TARGETS else "process"
        for key in _NOT_WITH[target]:
            if key in parts:
                m.error(parts[key], where, f"{where}: `{key}` does not go with target {target}")
        for needed, hint in (*_STARTS[target], ("port", "where people come in")):
            if isinstance(node.value, dict) and needed not in parts and not (needed == "port" and one_for_each):
                m.error(node, where, f"{where} must say `{needed}`", hint)
        if one_for_each and "port" in parts:
            m.error(parts["port"], where, f"{where}: each environment of a pattern gets a port of its own", "leave `port` out")
        values = {key: _ENVIRONMENT[key](m, value, f"{where}: {key}") for key, value in parts.items() if key in _ENVIRONMENT}
        if values.get("port") in ports and "port" in parts:
            m.error(parts["port"], where, f"{where}: port {values['port']} is taken by environment {ports[values['port']]!r}")
        ports[values.get("port")] = name
        tls = values.get("tls")
        if tls is not None and not (tls.domains and "@" in tls.email):
            m.error(
                parts["tls"], where, f"{where}: tls needs `domains` and an `email`", "the authority writes there before a certificate ends"
            )
        if tls is not None and values.get("router") != "traefik":
            m.error(parts["tls"], where, f"{where}: certificates come with router: traefik", "it needs pip install 'trunkline[traefik]'")
        if target == "compose" and "strategy" not in parts:
            values["strategy"] = Strategy(kind="recreate")
        strategy = values.get("strategy", Strategy())
        if target == "compose" and strategy.kind != "recreate":
            m.error(
                parts["strategy"],
                where,
                f"{where}: a Compose project is there once: strategy {strategy.kind} does not go with it",
                "kind: recreate",
            )
        if (strategy.header and strategy.cookie) or (strategy.value and not (strategy.header or strategy.cookie)):
            m.error(parts["strategy"], where, f"{where}: a cohort is known by a header or by a cookie, and the value of it")
        if strategy.approvers and strategy.approvals > len(strategy.approvers):
            m.error(
                parts["strategy"], where, f"{where}: {strategy.approvals} approvals can't come from {len(strategy.approvers)} approvers"
            )
        if not m.has_errors:
            found.append(EnvironmentSpec(name, **values))
    return (() if m.has_errors else tuple(found)), tuple(m.found)
