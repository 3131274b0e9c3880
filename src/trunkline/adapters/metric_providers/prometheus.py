"""The source `prometheus`: two queries to a Prometheus server, over its range API, so that what came late or was missed is taken in as well.

`requests` and `bad` are expressions whose value is a number of events in a window, with $RELEASE and $WINDOW in them, for example
sum(increase(app_requests_total{release="$RELEASE"}[$WINDOW])). (Prometheus' HTTP API: /api/v1/query_range.)
"""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.model.deliveries import Metric
from trunkline.model.errors import OutsideError

INTERVAL = 30.0  # seconds, where the metric says none
LAG = 2.0
FURTHEST = 600.0
TIMEOUT = 5.0


class PrometheusMetrics:
    """Implements ports.delivery.MetricProvider."""

    def __init__(self) -> None:
        self.until: dict[tuple[str, str], float] = {}

    def grown(self, folder: str, metric: Metric, releases: Mapping[int, Sequence[str]], now: float) -> Mapping[int, tuple[int, int]]:
        """Sum up all whole windows since the last call, for each release; a window without a value, or with NaN, is left out."""
        interval = metric.interval or INTERVAL
        key = folder, metric.name
        end = math.floor((now - LAG) / interval) * interval
        since = max(self.until.get(key, end), end - FURTHEST)
        if key not in self.until or since >= end:
            self.until.setdefault(key, end)
            return {}
        grown = {}
        for number in releases:
            window = {"RELEASE": str(number), "WINDOW": f"{interval:g}s"}
            requests = _range(metric.url, _filled(metric.requests, window), since + interval, end, interval)
            bad = _range(metric.url, _filled(metric.bad, window), since + interval, end, interval)
            if requests:
                grown[number] = round(sum(requests.values())), round(sum(bad.get(at, 0.0) for at in requests))
        self.until[key] = end
        return grown


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return text


def _range(url: str, query: str, start: float, end: float, step: float) -> dict[float, float]:
    """Ask for one value at each step; raises OutsideError with what Prometheus says."""
    asked = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": step})
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v1/query_range?{asked}", timeout=TIMEOUT) as reply:  # noqa: S310 - http or https: see spec
            told: dict[str, Any] = json.load(reply)
    except urllib.error.HTTPError as refusal:
        with refusal:
            text = refusal.read(2000).decode("utf-8", "replace")
        try:
            text = str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            text = text.strip()[:200]
        raise OutsideError(f"Prometheus refused {query!r}: {text}") from None
    except (OSError, ValueError) as problem:
        raise OutsideError(f"Prometheus at {url} can't be asked: {getattr(problem, 'reason', problem)}") from None
    series = told.get("data", {}).get("result", [])
    if len(series) > 1:
        raise OutsideError(f"{query!r} has {len(series)} values at each moment, it must have one", "put sum(...) around it")
    values = {float(at): float(value) for at, value in (series[0]["values"] if series else ())}
    return {at: value for at, value in values.items() if math.isfinite(value)}
