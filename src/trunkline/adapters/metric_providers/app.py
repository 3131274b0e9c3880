"""The source `app`: each instance's own /metrics, in Prometheus' text format. Counters of one instance only grow until it begins anew."""

import math
import re
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from trunkline.kit.record import record
from trunkline.model.deliveries import Metric
from trunkline.model.errors import ConfigError, OutsideError

TIMEOUT = 3.0  # seconds
LARGEST = 16 << 20
_SELECTOR = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s*\Z", re.DOTALL)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|\Z)')


@record
class Selector:
    """A name and conditions on labels, as in `requests_total{status=~"5.."}`."""

    name: str
    conditions: tuple[tuple[str, Callable[[str], bool]], ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether all conditions hold; a label that is not there is empty."""
        return all(holds(labels.get(label, "")) for label, holds in self.conditions)


def selector(text: str) -> Selector:
    """Read a selector; raises ConfigError."""
    match = _SELECTOR.match(text)
    if match is None:
        raise ConfigError(f"{text!r} selects no metric", 'for example requests_total{status=~"5.."}')
    conditions, at, inside = [], 0, match[2] or ""
    while inside[at:].strip():
        found = _MATCHER.match(inside, at)
        if found is None:
            raise ConfigError(f"{text!r}: {inside[at:].strip()!r} is no condition", 'for example status=~"5.."')
        label, how, value = found[1], found[2], re.sub(r"\\(.)", r"\1", found[3]) if "~" not in found[2] else found[3]
        conditions.append((label, _condition(text, how, value)))
        at = found.end()
    return Selector(match[1], tuple(conditions))


def _condition(text: str, how: str, value: str) -> Callable[[str], bool]:
    if how in ("=", "!="):
        return (lambda is_: is_ == value) if how == "=" else (lambda is_: is_ != value)
    try:
        pattern = re.compile(value)
    except re.error as wrong:
        raise ConfigError(f"{text!r}: {value!r} is no pattern: {wrong}") from None
    return (lambda is_: bool(pattern.fullmatch(is_))) if how == "=~" else (lambda is_: not pattern.fullmatch(is_))


class AppMetrics:
    """Implements ports.delivery.MetricProvider."""

    def __init__(self) -> None:
        self.askers = ThreadPoolExecutor(8, "metrics")
        self.last: dict[tuple[str, str], tuple[float, float]] = {}  # (folder and metric, address) -> what it had counted

    def grown(self, folder: str, metric: Metric, releases: Mapping[int, Sequence[str]], now: float) -> Mapping[int, tuple[int, int]]:
        """Ask all instances; an instance that began anew is counted from nought."""
        wanted = [(number, address) for number, addresses in releases.items() for address in addresses]
        answers = list(self.askers.map(lambda at: _ask(at[1], metric), wanted))
        problems = [answer for answer in answers if isinstance(answer, str)]
        if problems and len(problems) == len(answers):
            raise OutsideError(problems[0])
        key = f"{folder} {metric.name}"
        sums: dict[int, list[float]] = {}
        for (number, address), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, str):
                continue
            before = self.last.get((key, address))
            self.last[key, address] = answer
            if before is None:
                continue
            base = before if answer[0] >= before[0] and answer[1] >= before[1] else (0.0, 0.0)
            total = sums.setdefault(number, [0.0, 0.0])
            total[0] += answer[0] - base[0]
            total[1] += answer[1] - base[1]
        there = {(key, address) for _, address in wanted}
        for gone in [k for k in self.last if k[0] == key and k not in there]:
            del self.last[gone]
        return {number: (round(requests), round(bad)) for number, (requests, bad) in sums.items()}


def _ask(address: str, metric: Metric) -> tuple[float, float] | str:
    """Return what one instance has counted, or why that can't be known."""
    url = f"http://{address}{metric.path}"
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as reply:
            text = reply.read(LARGEST).decode("utf-8", "replace")
        if time.monotonic() - began > 2 * TIMEOUT:
            return f"{url} takes too long"
        return read(text, metric)
    except ConfigError as wrong:
        return wrong.message
    except (OSError, ValueError) as problem:
        return f"{url}: {problem}"


def read(text: str, metric: Metric) -> tuple[float, float]:
    """Return requests and bad ones from a page of metrics; raises ConfigError where the metric is not on it, ValueError where it is no such page."""
    if metric.histogram:
        return _slow(text, metric)
    requests, bad = selector(metric.requests), selector(metric.bad)
    sums, found = [0.0, 0.0], set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for i, wanted in enumerate((requests, bad)):
                if sample.name == wanted.name or sample.name == f"{wanted.name}_total":
                    found.add(i)
                    if wanted.matches(sample.labels) and not math.isnan(sample.value):
                        sums[i] += sample.value
    if 0 not in found:
        raise ConfigError(f"there is no {requests.name} on {metric.path}")
    return sums[0], sums[1]


def _slow(text: str, metric: Metric) -> tuple[float, float]:
    wanted = selector(metric.histogram)
    buckets: dict[float, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{wanted.name}_bucket" and wanted.matches(sample.labels) and not math.isnan(sample.value):
                bound = float(sample.labels.get("le", "nan"))
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
    if not buckets:
        raise ConfigError(f"there is no histogram {wanted.name} on {metric.path}")
    all_ = buckets.get(math.inf, max(buckets.values()))
    return all_, all_ - buckets[bound_for(metric.slower, [b for b in buckets if not math.isnan(b)])]


def bound_for(slower: float, bounds: Sequence[float]) -> float:
    """Return the smallest bound that is not below `slower`: what is beyond it is surely slower."""
    return min((b for b in bounds if b >= slower), default=max(bounds))
