"""Strategies: what a team wrote -> the phases of a rollout. Each is a pure function; each ends with PROMOTE.

recreate     stop the old release, start the new one: traffic fails between them
blue_green   start the new beside the old, let people look, switch all at once, keep the old warm until it has baked
red_black    the same, but the old release stays up until the next rollout, and takes over by itself when the new one falls ill
canary       a growing share of the traffic, each step held until the judge is content
rolling      instance by instance: one more of the new release, then one less of the old, never less than were there
beside       the new release gets an address of its own and leaves the old one alone, until it expires (see server/deliveries.py)
"""

from collections.abc import Callable

from trunkline.model.deliveries import EnvironmentSpec, Phase, PhaseKind, Strategy


def _gate(spec: EnvironmentSpec) -> list[Phase]:
    """Return what happens before the new release gets its first request."""
    smoke = [Phase(PhaseKind.HOOK, name="smoke")] if spec.hooks.smoke else []
    return [*smoke, *([Phase(PhaseKind.APPROVE, count=spec.strategy.approvals)] if spec.strategy.approvals else [])]


def _hold(strategy: Strategy) -> list[Phase]:
    """Return how one step is held: by the judge, else for a time."""
    if strategy.analysis:
        return [Phase(PhaseKind.ANALYSE, seconds=strategy.pause)]
    return [Phase(PhaseKind.PAUSE, seconds=strategy.pause)] if strategy.pause else []


def recreate(spec: EnvironmentSpec) -> list[Phase]:
    """Take the old release out of the traffic first: approvals come before that, a smoke test can only come after."""
    gates = [Phase(PhaseKind.APPROVE, count=spec.strategy.approvals)] if spec.strategy.approvals else []
    smoke = [Phase(PhaseKind.HOOK, name="smoke")] if spec.hooks.smoke else []
    return [*gates, Phase(PhaseKind.SET_WEIGHT, 100), Phase(PhaseKind.SCALE), *smoke, Phase(PhaseKind.PROMOTE)]


def blue_green(spec: EnvironmentSpec) -> list[Phase]:
    """Switch all at once, after the new release is ready and, with `pause`, was looked at."""
    strategy = spec.strategy
    look = [Phase(PhaseKind.PAUSE, seconds=strategy.pause)] if strategy.pause and not strategy.analysis else []
    watch = [Phase(PhaseKind.ANALYSE, seconds=strategy.pause)] if strategy.analysis else []
    return [
        Phase(PhaseKind.SCALE),
        *look,
        *_gate(spec),
        Phase(PhaseKind.SET_WEIGHT, 99 if watch else 100),
        *watch,
        Phase(PhaseKind.PROMOTE),
    ]


def canary(spec: EnvironmentSpec) -> list[Phase]:
    """Walk the steps."""
    phases = [Phase(PhaseKind.SCALE), *_gate(spec)]
    for weight in spec.strategy.steps:
        phases += [Phase(PhaseKind.SET_WEIGHT, weight), *_hold(spec.strategy)]
    return [*phases, Phase(PhaseKind.PROMOTE)]


def rolling(spec: EnvironmentSpec) -> list[Phase]:
    """One instance after the other: start, gate, shift its part of the traffic, watch; the old release loses one as soon as it may."""
    phases: list[Phase] = []
    for done in range(1, spec.instances):
        phases.append(Phase(PhaseKind.SCALE, count=done))
        if done == 1:
            phases += _gate(spec)
        phases += [Phase(PhaseKind.SET_WEIGHT, round(100 * done / spec.instances)), *_hold(spec.strategy)]
    return [*phases, Phase(PhaseKind.SCALE), *(_gate(spec) if spec.instances == 1 else ()), Phase(PhaseKind.PROMOTE)]


def beside(spec: EnvironmentSpec) -> list[Phase]:
    """Start it: there is nothing to replace at its address."""
    return [Phase(PhaseKind.SCALE), *_gate(spec), Phase(PhaseKind.PROMOTE)]


STRATEGIES: dict[str, Callable[[EnvironmentSpec], list[Phase]]] = {
    "recreate": recreate,
    "blue_green": blue_green,
    "red_black": blue_green,
    "canary": canary,
    "rolling": rolling,
    "beside": beside,
}


def phases(spec: EnvironmentSpec, first: bool, warm: bool = False) -> tuple[Phase, ...]:
    """Return the phases of a rollout: nothing to compare with the `first` time, nothing to start where the release is `warm` (a rollback)."""
    if warm:
        return (Phase(PhaseKind.PROMOTE),)
    begin = [Phase(PhaseKind.PAUSE, seconds=spec.gates.wait)] if spec.gates.wait else []
    begin += [Phase(PhaseKind.HOOK, name="before")] if spec.hooks.before else []
    return (*begin, *(beside if first else STRATEGIES[spec.strategy.kind])(spec))


def back(spec: EnvironmentSpec) -> tuple[Phase, ...]:
    """Return the phases of a way back to a release that must be started first: no gate, no hook, no watching. What is there once is replaced at once."""
    turn = (Phase(PhaseKind.SET_WEIGHT, 100),) if spec.is_there_once else ()
    return (*turn, Phase(PhaseKind.SCALE), Phase(PhaseKind.PROMOTE))
