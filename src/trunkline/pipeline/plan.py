"""Pipeline + event -> run. Decides every rule, keeps the reason of every decision, and fails only where GitLab would refuse the pipeline."""

from collections.abc import Callable, Mapping

from trunkline.kit.lazy import lazy
from trunkline.kit.record import record, replace
from trunkline.kit.words import did_you_mean
from trunkline.model.conditions import judge, ref_pattern
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.model.events import Event, EventKind
from trunkline.model.pipelines import AllowFailure, Job, Need, Pipeline, RefPolicy, Rule, When
from trunkline.model.runs import Decision, JobRun, Run, Status
from trunkline.model.variables import Variable, expand, resolve
from trunkline.pipeline.variables import job_variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.kit import globs, patterns
else:
    globs, patterns = lazy("trunkline.kit.globs"), lazy("trunkline.kit.patterns")

Seen = tuple[tuple[str, str | None], ...]


@record
class Planned:
    """A run without identity, or None and why not. `possible` is the run that there would be, where the event itself is no reason for one."""

    run: Run | None
    decisions: tuple[Decision, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    because: str = ""
    possible: Run | None = None


@record
class _Verdict:
    """What the rules say of one job."""

    created: bool
    because: str
    rule: Rule | None = None
    seen: Seen = ()
    when: When | None = None
    allow_failure: AllowFailure | None = None


Since = Callable[[str], tuple[str, ...] | None]
Elsewhere = Callable[[str, str], tuple[str, ...]]


class _NoSuchRef(Exception):
    def __init__(self, ref: str, place: Place) -> None:
        super().__init__(ref)
        self.ref, self.place = ref, place


def plan(
    pipeline: Pipeline,
    event: Event,
    predefined: Mapping[str, str],
    list_paths: Callable[[], tuple[str, ...]],
    project: str = "",
    since: Since = lambda ref: None,
    elsewhere: Elsewhere = lambda project, ref: (),
) -> Planned:
    """Plan a run. `list_paths` is asked only if a rule looks at which files exist, `since` if one compares with another ref: it tells what has
    changed since the common ancestor, None where there is no such ref. `elsewhere` tells the files of another project at a ref."""
    if pipeline.started_by is not None:
        return _plan_workflow(pipeline, event, predefined, project)
    try:
        return _plan(pipeline, event, predefined, _Judgement(event, list_paths, since, elsewhere), project)
    except _NoSuchRef as missing:
        said = Diagnostic(
            Severity.ERROR, "rules:changes:compare_to", f'compare_to: there is no ref "{missing.ref}" to compare with', missing.place
        )
        return Planned(None, (), (said,), "a rule compares with a ref that is not there")


def _plan_workflow(pipeline: Pipeline, event: Event, predefined: Mapping[str, str], project: str) -> Planned:
    from trunkline.pipeline.workflows.contexts import About
    from trunkline.pipeline.workflows.planning import plan_workflow

    about = About(predefined["CI_PROJECT_PATH"], predefined["CI_DEFAULT_BRANCH"], predefined.get("CI_SERVER_URL", ""))
    made = plan_workflow(pipeline, event, about)
    run = replace(made.run, project=project) if made.run is not None else None
    return Planned(run, made.decisions, made.diagnostics, made.because)


def _plan(pipeline: Pipeline, event: Event, predefined: Mapping[str, str], judgement: "_Judgement", project: str) -> Planned:
    given = tuple(Variable(n, v) for n, v in event.variables)
    base = [*(Variable(n, v, raw=True) for n, v in predefined.items()), *pipeline.variables]
    extra: tuple[Variable, ...] = ()
    if pipeline.workflow is not None:
        verdict = judgement.rules(pipeline.workflow, resolve([*base, *given]), None)
        if not verdict.created:
            decision = _decision("", verdict)
            return Planned(None, (decision,), because=f"workflow:rules keep this run from starting: {verdict.because}")
        extra = verdict.rule.variables if verdict.rule else ()
        if verdict.rule and verdict.rule.auto_cancel:
            pipeline = replace(pipeline, auto_cancel=replace(pipeline.auto_cancel, **dict(verdict.rule.auto_cancel)))
    jobs: list[JobRun] = []
    decisions: list[Decision] = []
    common = resolve([*base, *extra, *given])
    for job in pipeline.jobs:
        file_level = [v for v in (*pipeline.variables, *extra) if job.inherit_variables is None or v.name in job.inherit_variables]
        own = job_variables(job)
        if job.variables or job.inherit_variables is not None:
            values = resolve([*(Variable(n, v, raw=True) for n, v in {**predefined, **own}.items()), *file_level, *job.variables, *given])
        else:
            values = {**common, **own}
        verdict = judgement.job(job, values)
        decisions.append(_decision(job.name, verdict))
        if verdict.created:
            jobs.append(_job_run(job, verdict, file_level, given, values))
    found = _missing_needs(jobs, decisions)
    if found:
        return Planned(None, tuple(decisions), tuple(found), "a job needs another that is not in this run")
    if not jobs:
        return Planned(None, tuple(decisions), because="the rules of every job keep it out of this run")
    name = expand(pipeline.name, common)
    run = Run(
        id=0,
        project=project,
        number=0,
        event=event,
        status=Status.CREATED,
        jobs=tuple(jobs),
        stages=pipeline.stages,
        decisions=tuple(decisions),
        name=name,
        dialect=pipeline.dialect,
        auto_cancel=pipeline.auto_cancel,
    )
    if all(job.job.stage in (".pre", ".post") for job in jobs):
        return Planned(None, tuple(decisions), (), "only jobs of the stages .pre and .post are in it, and they alone make no run", run)
    return Planned(run, tuple(decisions))


def _job_run(job: Job, verdict: _Verdict, file_level: list[Variable], given: tuple[Variable, ...], values: Mapping[str, str]) -> JobRun:
    rule = verdict.rule
    needs = job.needs
    variables = (*file_level, *job.variables)
    interruptible = job.interruptible
    if rule is not None:
        needs = rule.needs if rule.needs is not None else needs
        variables = (*variables, *rule.variables)
        interruptible = rule.interruptible if rule.interruptible is not None else interruptible
    start_in = rule.start_in if rule is not None and rule.when is When.DELAYED else job.start_in
    group = expand(job.resource_group, values) if "$" in job.resource_group else job.resource_group
    decided = replace(
        job, variables=(*variables, *given), needs=needs, rules=None, only=None, except_=None, interruptible=interruptible, start_in=start_in,
        resource_group=group,
    )  # fmt: skip
    return JobRun(
        id=0,
        job=decided,
        status=Status.CREATED,
        when=verdict.when or job.when,
        allow_failure=verdict.allow_failure or job.allow_failure or AllowFailure(),
        needs=None if needs is None else tuple(n.job for n in needs),
    )


def _missing_needs(jobs: list[JobRun], decisions: list[Decision]) -> list[Diagnostic]:
    """Report needs on jobs that the rules left out; forget optional ones."""
    names = {j.name for j in jobs}
    why = {d.job: d.because for d in decisions}
    found = []
    for i, run in enumerate(jobs):
        kept: list[Need] = []
        for need in run.job.needs or ():
            if need.job in names:
                kept.append(need)
            elif not need.optional:
                reason = f"that job is not in this run: {why[need.job]}" if need.job in why else "no job has that name"
                hint = did_you_mean(need.job, names) if need.job not in why else "make the need optional, or let the rules of both agree"
                found.append(
                    Diagnostic(
                        Severity.ERROR, "needs", f'job "{run.name}" needs "{need.job}", but {reason}', need.place or run.job.place, hint
                    )
                )
        if run.job.needs is not None:
            jobs[i] = replace(run, job=replace(run.job, needs=tuple(kept)), needs=tuple(n.job for n in kept))
    return found


def _decision(job: str, verdict: _Verdict) -> Decision:
    rule = verdict.rule
    return Decision(
        job,
        verdict.created,
        verdict.because,
        rule.text if rule else "",
        rule.place.file if rule else "",
        rule.place.line if rule else 0,
        verdict.seen,
    )


class _Judgement:
    """Judges rules for one event. Holds what is costly to know."""

    def __init__(self, event: Event, list_paths: Callable[[], tuple[str, ...]], since: Since, elsewhere: Elsewhere) -> None:
        self.since, self.elsewhere = since, elsewhere
        self.event, self.list_paths = event, list_paths
        self.paths: tuple[str, ...] | None = None

    def exists(self, rule: Rule, values: Mapping[str, str]) -> bool:
        if rule.exists_project:
            paths = self.elsewhere(expand(rule.exists_project, values), expand(rule.exists_ref, values))
        else:
            if self.paths is None:
                self.paths = self.list_paths()
            paths = self.paths
        expanded = [expand(p, values) for p in rule.exists or ()]
        return any(globs.matches(p, path) for p in expanded for path in paths)

    def changed(self, patterns: tuple[str, ...], values: Mapping[str, str], rule: Rule | None = None) -> bool:
        """Where nothing can be compared (new branch, tag, schedule) everything counts as changed, as in GitLab."""
        found = self.event.changed
        if rule is not None and rule.compare_to:
            ref = expand(rule.compare_to, values)
            found = self.since(ref)
            if found is None:
                raise _NoSuchRef(ref, rule.place)
        if found is None:
            return True
        expanded = [expand(p, values) for p in patterns]
        return any(globs.matches(p, path) for p in expanded for path in found)

    def job(self, job: Job, values: Mapping[str, str]) -> _Verdict:
        if job.rules is not None:
            return self.rules(job.rules, values, job)
        if job.when is When.NEVER:
            return _Verdict(False, "when: never")
        if job.only is None and job.except_ is None:
            if self.event.is_request:
                return _Verdict(False, "a job without rules runs for branches and tags, not for change requests")
            return _Verdict(True, "it has no rules: it runs for every branch and tag", when=job.when)
        return self._policies(job, values)

    def rules(self, rules: tuple[Rule, ...], values: Mapping[str, str], job: Job | None) -> _Verdict:
        """Return the verdict of the first rule that holds."""
        seen: dict[str, str | None] = {}
        for rule in rules:
            if rule.condition is not None:
                judged = judge(rule.condition, values)
                seen.update(judged.seen)
                if not judged.holds:
                    continue
            if rule.changes is not None and not self.changed(rule.changes, values, rule):
                continue
            if rule.exists is not None and not self.exists(rule, values):
                continue
            when = rule.when or (job.when if job else When.ON_SUCCESS)
            allow = rule.allow_failure or (job.allow_failure if job else None)
            said = f"the rule on line {rule.place.line} holds ({rule.text})"
            return _Verdict(when is not When.NEVER, said, rule, tuple(seen.items()), when, allow)
        said = "none of its rules holds" if rules else "its list of rules is empty"
        return _Verdict(False, said, None, tuple(seen.items()))

    def _policies(self, job: Job, values: Mapping[str, str]) -> _Verdict:
        only = job.only or RefPolicy(job.place, refs=("branches", "tags"))
        refused, seen = self._refuses(only, values)
        if refused:
            return _Verdict(False, f"only: {refused}", seen=seen)
        if job.except_ is not None:
            hit, more = self._hits(job.except_, values)
            seen = (*seen, *more)
            if hit:
                return _Verdict(False, f"except: {hit}", seen=seen)
        said = "only: " + ", ".join(only.refs) if job.only else "except does not hold it back"
        return _Verdict(True, said or "only holds", seen=seen, when=job.when)

    def _refuses(self, only: RefPolicy, values: Mapping[str, str]) -> tuple[str, Seen]:
        """Return which group of an `only` does not hold, or ''. All groups must hold."""
        seen: Seen = ()
        if only.refs and not any(self._is_ref(ref, values) for ref in only.refs):
            return f"{self._ref_word()} is not among {', '.join(only.refs)}", seen
        if only.variables:
            judged = [judge(c, values) for _, c in only.variables]
            seen = tuple(pair for j in judged for pair in j.seen)
            if not any(j.holds for j in judged):
                return f"no condition holds: {'; '.join(t for t, _ in only.variables)}", seen
        if only.changes and not self.changed(only.changes, values):
            return f"nothing changed under {', '.join(only.changes)}", seen
        if only.kubernetes:
            return "there is no Kubernetes cluster", seen
        return "", seen

    def _hits(self, policy: RefPolicy, values: Mapping[str, str]) -> tuple[str, Seen]:
        """Return which group of an `except` holds, or ''. Any group is enough."""
        for ref in policy.refs:
            if self._is_ref(ref, values):
                return f"{self._ref_word()} matches {ref}", ()
        seen: list[tuple[str, str | None]] = []
        for text, condition in policy.variables:
            judged = judge(condition, values)
            seen.extend(judged.seen)
            if judged.holds:
                return f"the condition holds: {text}", tuple(seen)
        if policy.changes and self.changed(policy.changes, values):
            return f"something changed under {', '.join(policy.changes)}", tuple(seen)
        return "", tuple(seen)

    def _ref_word(self) -> str:
        kind = "change request" if self.event.is_request else "tag" if self.event.is_tag else "branch"
        return f"{kind} {self.event.ref}"

    def _is_ref(self, ref: str, values: Mapping[str, str]) -> bool:
        ref, _, path = ref.partition("@")
        if path and path != values.get("CI_PROJECT_PATH"):
            return False
        event = self.event
        is_request = event.is_request
        match ref:
            case "branches":
                return not event.is_tag and not is_request
            case "tags":
                return event.is_tag
            case "merge_requests":
                return is_request
            case "pushes":
                return event.kind is EventKind.PUSH
            case "web":
                return event.kind is EventKind.MANUAL
            case "schedules":
                return event.kind is EventKind.SCHEDULE
            case "api":
                return event.kind is EventKind.API
            case "triggers":
                return event.kind is EventKind.TRIGGER
            case "pipelines":
                return event.kind is EventKind.UPSTREAM
            case "chat" | "external" | "external_pull_requests":
                return False
        if is_request:
            return False
        pattern = ref_pattern(ref)
        if pattern is not None:
            return patterns.searches(pattern, event.ref)
        return ref == event.ref
