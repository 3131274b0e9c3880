"""Pictures of a rollout: what both releases answered, second by second, as SVG that can be read aloud."""

from collections.abc import Sequence

from trunkline.model.deliveries import Phase, PhaseKind, Tick

WIDTH, HEIGHT, MOST = 720, 90, 120


def traffic(ticks: Sequence[Tick]) -> str:
    """Return bars: the stable release's requests, on them the new one's, and from the bottom what was bad of both. Lines mark where the weight changed."""
    if not ticks:
        return ""
    groups = _groups(ticks)
    columns = [
        (sum(t.stable_requests for t in g), sum(t.canary_requests for t in g), sum(t.stable_bad + t.canary_bad for t in g)) for g in groups
    ]
    most = max(1, *(old + new for old, new, _ in columns))
    step = _step(len(groups))
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
        f'<figure class="traffic">{_svg(HEIGHT, said, "".join(bars) + _marks(groups, HEIGHT))}{_names(groups)}'
        f'<figcaption><span class="key old"></span>stable {old} <span class="key new"></span>new {new} <span class="key bad"></span>bad {bad}'
        f" · requests in {len(ticks)} s</figcaption></figure>"
    )


def latency(p95: Sequence[tuple[float, float | None, float | None]], ticks: Sequence[Tick]) -> str:
    """Return two lines: in which time 95 of 100 answers of the stable and of the new release came."""
    rows = [(at, old, new) for at, old, new in p95 if old is not None or new is not None]
    if len(rows) < 2 or not ticks:
        return ""
    tall = HEIGHT * 0.6
    begin, groups = ticks[0].at, _groups(ticks)
    wide = _step(len(groups)) * len(groups) / max(1.0, ticks[-1].at - begin)
    most = max(v for _, *pair in rows for v in pair if v is not None) or 1.0
    lines = []
    for i, name in ((1, "old"), (2, "new")):
        points = [(wide * (row[0] - begin), tall - (tall - 4) * v / most) for row in rows if (v := row[i]) is not None]
        if points:
            lines.append(f'<polyline class="{name}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    last = [next((v for row in reversed(rows) if (v := row[i]) is not None), None) for i in (1, 2)]
    told = [f"{v * 1000:.0f} ms" if v is not None else "none" for v in last]
    said = f"95 of 100 answers came within {told[0]} from the stable release, {told[1]} from the new one, at the end"
    return (
        f'<figure class="traffic latency">{_svg(tall, said, "".join(lines) + _marks(groups, tall))}'
        f'<figcaption><span class="key old"></span>stable {told[0]} <span class="key new"></span>new {told[1]}'
        f" · 95th percentile, the top is {most * 1000:.0f} ms</figcaption></figure>"
    )


def _groups(ticks: Sequence[Tick]) -> list[Sequence[Tick]]:
    size = max(1, -(-len(ticks) // MOST))
    return [ticks[i : i + size] for i in range(0, len(ticks), size)]


def _step(columns: int) -> float:
    return WIDTH / max(columns, 30)


def _svg(height: float, said: str, inside: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{said}" preserveAspectRatio="none">{inside}</svg>'


def _changes(groups: Sequence[Sequence[Tick]]) -> list[tuple[float, int]]:
    """Return where, along the picture, each new weight begins."""
    found: list[tuple[float, int]] = []
    for i, group in enumerate(groups):
        weight = next((t.weight for t in group if t.weight), 0)
        if weight and (not found or found[-1][1] != weight):
            found.append((i * _step(len(groups)), weight))
    return found


def _marks(groups: Sequence[Sequence[Tick]], height: float) -> str:
    return "".join(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height:g}"/>' for x, _ in _changes(groups) if x)


def _names(groups: Sequence[Sequence[Tick]]) -> str:
    """Return the weights under the picture, as text that does not stretch with it (and needs no style attribute: the pages forbid them)."""
    names = "".join(f'<text x="{100 * x / WIDTH:.2f}%" dx="3" y="12">{weight} %</text>' for x, weight in _changes(groups))
    return f'<svg class="axis" aria-hidden="true">{names}</svg>' if names else ""


def label(phase: Phase) -> str:
    """Return a phase in a word or two."""
    seconds = f" {phase.seconds:g} s" if phase.seconds else ""
    match phase.kind:
        case PhaseKind.HOOK:
            return phase.name
        case PhaseKind.SCALE:
            return f"start {phase.count}" if phase.count else "start"
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
