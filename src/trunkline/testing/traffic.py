"""Simulated traffic of a rollout, for tests and for the benchmark of judges: the same seed gives the same ticks."""

import math
import random

from trunkline.model.deliveries import Tick


def poisson(rng: random.Random, mean: float) -> int:
    """Return a count with this mean."""
    if mean <= 0:
        return 0
    if mean > 40:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def tick(rng: random.Random, at: float, requests: float, weight: float, stable: float, canary: float, burst: float = 0.0) -> Tick:
    """Return what both releases did until `at`: so many requests in all, shares of bad ones as given, with gamma noise of that CV."""
    n0, n1 = poisson(rng, requests * (1 - weight)), poisson(rng, requests * weight)
    f0, f1 = (rng.gammavariate(1 / burst**2, burst**2) if burst else 1.0 for _ in range(2))
    return Tick(at, n0, min(n0, poisson(rng, n0 * min(0.9, stable * f0))), n1, min(n1, poisson(rng, n1 * min(0.9, canary * f1))))
