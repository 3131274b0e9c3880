"""Pictures of a rollout: what both releases answered, second by second, as SVG that can be read aloud."""

from collections.abc import Sequence

from trunkline.model.deliveries import Phase, PhaseKind, Tick

WIDTH, HEIGHT, MOST = 720, 90, 120


def traffic(ticks: Sequence[Tick]) -> str:
    """Return bars: the stable release's requests, on them the new one's, and from the bottom what was bad of both."""
    if not ticks:
        return ""
    size = max(1, -(-len(ticks) // MOST))
    groups = [ticks[i : i + size] for i in range(0, len(ticks), size)]
    columns = [
        (sum(t.stable_requests for t in g), sum(t.canary_requests for t in g), sum(t.stable_bad + t.canary_bad for t in g)) for g in groups
    ]
    most = max(1, *(old + new for old, new, _ in columns))
    step = WIDTH / max(len(columns), 30)
    bars = []
    for i, (old, new, bad) in enumerate(columns):
        x, width = i * step, max(1.0, step - 1)
        heights = [HEIGHT * n / most for n in (old, new, bad)]
        bars.append(f'<rect class="old" x="{x:.1f}" y="{HEIGHT - heights[0]:.1f}" width="{width:.1f}" height="{heights[0]:.1f}"/>')
        bars.append(
            f'<rect class="new" x="{x:.1f}" y="{HEIGHT - heights[0] - heights[1]:.1f}" width="{width:.1f}" height="{heights[1]:.1f}"/>'
        )
        if bad:
            tall = max(2.0, heights[2])
            bars.append(f'<rect class="bad" x="{x:.1f}" y="{HEIGHT - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>')
    old, new, bad = (sum(c[i] for c in columns) for i in range(3))
    said = f"{len(ticks)} seconds: {old} requests to the stable release, {new} to the new one, {bad} bad"
    return (
        f'<figure class="traffic"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}" preserveAspectRatio="none">{"".join(bars)}</svg>'
        f'<figcaption><span class="key old"></span>stable {old} <span class="key new"></span>new {new} <span class="key bad"></span>bad {bad}'
        f" · {len(ticks)} s</figcaption></figure>"
    )


def label(phase: Phase) -> str:
    """Return a phase in a word or two."""
    seconds = f" {phase.seconds:g} s" if phase.seconds else ""
    match phase.kind:
        case PhaseKind.SCALE:
            return "start"
        case PhaseKind.SET_WEIGHT:
            return f"{phase.weight} %"
        case PhaseKind.PAUSE:
            return f"wait{seconds}"
        case PhaseKind.ANALYSE:
            return "watch"
        case PhaseKind.APPROVE:
            return f"approval × {phase.count}"
        case PhaseKind.PROMOTE:
            return "all"
