"""Strategies: what a team wrote -> the phases of a rollout. Each is a pure function; each ends with PROMOTE.

recreate     stop the old release, start the new one: traffic fails between them
blue_green   start the new beside the old, let people look, switch all at once, keep the old warm
red_black    another name for blue_green: the old release stays warm until the switch has baked, then it is stopped
canary       a growing share of the traffic, each step held until the judge is content
rolling      as many steps as instances: the new release is started whole, beside the old, and its share grows by one instance's part at a time
"""

from collections.abc import Callable

from trunkline.model.deliveries import EnvironmentSpec, Phase, PhaseKind, Strategy


def _gate(strategy: Strategy) -> list[Phase]:
    return [Phase(PhaseKind.APPROVE, count=strategy.approvals)] if strategy.approvals else []


def _hold(strategy: Strategy) -> list[Phase]:
    """Return how one step is held: by the judge, else for a time."""
    if strategy.analysis:
        return [Phase(PhaseKind.ANALYSE, seconds=strategy.pause)]
    return [Phase(PhaseKind.PAUSE, seconds=strategy.pause)] if strategy.pause else []


def recreate(strategy: Strategy, instances: int) -> list[Phase]:
    """Take the old release out of the traffic first."""
    return [*_gate(strategy), Phase(PhaseKind.SET_WEIGHT, 100), Phase(PhaseKind.SCALE), Phase(PhaseKind.PROMOTE)]


def blue_green(strategy: Strategy, instances: int) -> list[Phase]:
    """Switch all at once, after the new release is ready and, with `pause`, was looked at."""
    look = [Phase(PhaseKind.PAUSE, seconds=strategy.pause)] if strategy.pause and not strategy.analysis else []
    watch = [Phase(PhaseKind.ANALYSE, seconds=strategy.pause)] if strategy.analysis else []
    return [
        Phase(PhaseKind.SCALE),
        *look,
        *_gate(strategy),
        Phase(PhaseKind.SET_WEIGHT, 99 if watch else 100),
        *watch,
        Phase(PhaseKind.PROMOTE),
    ]


def canary(strategy: Strategy, instances: int) -> list[Phase]:
    """Walk the steps."""
    phases = [Phase(PhaseKind.SCALE), *_gate(strategy)]
    for weight in strategy.steps:
        phases += [Phase(PhaseKind.SET_WEIGHT, weight), *_hold(strategy)]
    return [*phases, Phase(PhaseKind.PROMOTE)]


def rolling(strategy: Strategy, instances: int) -> list[Phase]:
    """Let the share grow by one instance at a time."""
    phases = [Phase(PhaseKind.SCALE), *_gate(strategy)]
    for done in range(1, instances):
        phases += [Phase(PhaseKind.SET_WEIGHT, round(100 * done / instances)), *_hold(strategy)]
    return [*phases, Phase(PhaseKind.PROMOTE)]


STRATEGIES: dict[str, Callable[[Strategy, int], list[Phase]]] = {
    "recreate": recreate,
    "blue_green": blue_green,
    "red_black": blue_green,
    "canary": canary,
    "rolling": rolling,
}


def phases(spec: EnvironmentSpec, first: bool, warm: bool = False) -> tuple[Phase, ...]:
    """Return the phases of a rollout: nothing to compare with the `first` time, nothing to start where the release is `warm` (a rollback)."""
    if warm:
        return (Phase(PhaseKind.PROMOTE),)
    wait = (Phase(PhaseKind.PAUSE, seconds=spec.gates.wait),) if spec.gates.wait else ()
    if first:
        return (*wait, Phase(PhaseKind.SCALE), *_gate(spec.strategy), Phase(PhaseKind.PROMOTE))
    return (*wait, *STRATEGIES[spec.strategy.kind](spec.strategy, spec.instances))
