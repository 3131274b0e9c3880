"""The picture of a run: jobs in columns, needs as curves, as SVG that works without JavaScript and can be read aloud."""

from html import escape

from trunkline.kit.record import record
from trunkline.model.runs import JobRun, Run, Status

WIDTH, HEIGHT, GAP_X, GAP_Y, TOP = 200, 34, 56, 10, 34
MAX_EDGES = 600

_WORST = (Status.FAILED, Status.CANCELED, Status.RUNNING, Status.QUEUED, Status.MANUAL, Status.CREATED, Status.PASSED, Status.SKIPPED)


@record
class Box:
    """One job, or all nodes of a parallel one."""

    name: str
    jobs: tuple[JobRun, ...]
    column: int

    @property
    def shown(self) -> JobRun:
        """The job whose state stands for all."""
        return min(self.jobs, key=lambda j: (_WORST.index(j.status), j.may_fail))


def status_class(job: JobRun) -> str:
    """Return the class that colours a job: amber for a failure that is allowed."""
    return "warned" if job.status is Status.FAILED and job.may_fail else job.status.value


def boxes(run: Run) -> tuple[list[Box], list[str]]:
    """Return the boxes and the titles of the columns: stages, or the depth of needs where every job says what it needs."""
    groups: dict[str, list[JobRun]] = {}
    for job in run.jobs:
        groups.setdefault(job.job.group or job.name, []).append(job)
    used = {job.job.stage for job in run.jobs}
    stages = [stage for stage in run.stages if stage in used]
    if len(stages) > 1 or not any(j.needs for j in run.jobs):
        column = {stage: i for i, stage in enumerate(stages)}
        return [
            Box(jobs[0].name if len(jobs) == 1 else name, tuple(jobs), column.get(jobs[0].job.stage, 0)) for name, jobs in groups.items()
        ], stages
    depth: dict[str, int] = {}
    waiting = list(run.jobs)
    while waiting:
        later = []
        for job in waiting:
            needs = [n for n in job.needs or () if any(j.name == n for j in run.jobs)]
            if all(n in depth for n in needs):
                depth[job.name] = 1 + max((depth[n] for n in needs), default=-1)
            else:
                later.append(job)
        if len(later) == len(waiting):
            break
        waiting = later
    found = [
        Box(jobs[0].name if len(jobs) == 1 else name, tuple(jobs), max(depth.get(j.name, 0) for j in jobs)) for name, jobs in groups.items()
    ]
    return found, [""] * (1 + max((b.column for b in found), default=0))


def svg(run: Run) -> str:
    """Return the graph of a run."""
    found, titles = boxes(run)
    rows: dict[int, int] = {}
    at: dict[str, tuple[int, int]] = {}
    nodes: list[str] = []
    for box in found:
        row = rows.get(box.column, 0)
        rows[box.column] = row + 1
        x, y = box.column * (WIDTH + GAP_X) + 1, TOP + row * (HEIGHT + GAP_Y)
        for job in box.jobs:
            at[job.name] = (x, y)
        nodes.append(_node(box, x, y))
    width = max(1, len(titles)) * (WIDTH + GAP_X) - GAP_X // 2
    height = TOP + max(rows.values(), default=1) * (HEIGHT + GAP_Y)
    step = WIDTH + GAP_X
    heads = [
        f'<path class="flow" d="M{i * step + 16 + 8 * len(title)} 14H{(i + 1) * step - 6}"/>'
        for i, title in enumerate(titles[:-1])
        if title and 8 * len(title) < WIDTH
    ]
    heads += [f'<text class="stage" x="{i * (WIDTH + GAP_X) + 4}" y="18">{escape(title)}</text>' for i, title in enumerate(titles) if title]
    edges = sorted({(at[n], at[j.name]) for j in run.jobs for n in j.needs or () if n in at and at[n] != at[j.name]})[:MAX_EDGES]
    curves = [_curve(a, b) for a, b in edges]
    about = f"Pipeline of run {run.number}: {len(run.jobs)} jobs in {len(titles)} columns"
    return (
        f'<svg class="graph" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="group" aria-label="{about}">'
        + "".join((*heads, *curves, *nodes))
        + "</svg>"
    )


def _node(box: Box, x: int, y: int) -> str:
    job = box.shown
    kind = status_class(job)
    many = len(box.jobs)
    passed = sum(j.status is Status.PASSED for j in box.jobs)
    count = f" {passed}/{many}" if many > 1 else ""
    room = 22 - len(count)
    name = box.name if len(box.name) <= room else box.name[: room - 1] + "…"
    label = escape(f"{box.name}: {kind}" + (f", {passed} of {many} passed" if many > 1 else ""))
    target = f"#group-{escape(box.name)}" if many > 1 else f"/jobs/{job.id}"
    return (
        f'<a href="{target}" class="node {kind}" aria-label="{label}"><title>{label}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<circle class="dot" cx="{x + 17}" cy="{y + HEIGHT // 2}" r="6"/>'
        f'<text x="{x + 32}" y="{y + 22}">{escape(name)}<tspan class="count">{count}</tspan></text></a>'
    )


def _curve(a: tuple[int, int], b: tuple[int, int]) -> str:
    x1, y1, x2, y2 = a[0] + WIDTH, a[1] + HEIGHT // 2, b[0], b[1] + HEIGHT // 2
    if b[0] <= a[0]:  # both in one column: around the right side
        x2 = b[0] + WIDTH
        bend = x1 + GAP_X // 2
        return f'<path class="edge" d="M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"/>'
    bend = (x1 + x2) // 2
    return f'<path class="edge" d="M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"/>'
