"""Change requests: opened, run, approved, merged. What is run is the result of merging where the target has gone on, else the branch itself."""

import time

import structlog

from trunkline.kit.record import record, replace
from trunkline.model.errors import ConfigError, Refused, TrunklineError
from trunkline.model.events import Event, EventKind, Proposal
from trunkline.model.requests import ChangeRequest, RequestState
from trunkline.model.runs import Run
from trunkline.ports.store import RunRow, Store
from trunkline.server.line import Line
from trunkline.server.merging import FileChange, Merging

_BAD_FIRST = {
    "failed": 0,
    "canceled": 0,
    "passed": 2,
    "skipped": 3,
}  # of several runs the one that keeps a request from being merged is shown
log = structlog.get_logger()


@record
class Standing:
    """What is known of an open request now: what it changes, its newest run, and what keeps it from being merged ("" for nothing)."""

    request: ChangeRequest
    base: str
    conflicts: tuple[str, ...]
    run: RunRow | None
    obstacle: str
    waits: bool

    @property
    def can_merge(self) -> bool:
        """Whether it can be merged now."""
        return not self.obstacle


class Requests:
    """All change requests of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, line: Line, required_approvals: int = 0) -> None:
        self.store, self.line, self.required_approvals = store, line, required_approvals
        self.lock = line.lock  # one lock for both: a push leads from the line to here, an opened request from here to the line

    def _git(self, project: str) -> Merging:
        return Merging(self.line.repositories.git_dir(project))

    def of(self, project: str) -> list[ChangeRequest]:
        """Return a project's requests, newest first."""
        return list(reversed(self.store.read(lambda tx: tx.documents(ChangeRequest, project))))

    def find(self, project: str, number: int) -> ChangeRequest:
        """Return one; raises ConfigError."""
        found = next((r for r in self.of(project) if r.number == number), None)
        if found is None:
            raise ConfigError(f"{project} has no change request {number}", "trunkline request lists them")
        return found

    def open_from(self, project: str, branch: str) -> tuple[str, ...]:
        """Return what is proposed from a branch, as GROUP/NAME!N."""
        return tuple(f"{project}!{r.number}" for r in self.of(project) if r.state is RequestState.OPEN and r.source == branch)

    def _heads(self, project: str) -> dict[str, str]:
        known = self.line.repositories.refs(project)
        return {ref.removeprefix("refs/heads/"): sha for ref, sha in known.items() if ref.startswith("refs/heads/")}

    def open(
        self,
        project: str,
        source: str,
        target: str,
        title: str,
        description: str,
        author: str,
        squash: bool = False,
        remove_source: bool = False,
    ) -> ChangeRequest:
        """Propose a branch for another and start its run; raises ConfigError."""
        known = self.store.read(lambda tx: tx.find_project(project))
        if known is None:
            raise ConfigError(f"there is no project {project}")
        with self.lock:
            target = target or known.default_branch
            heads = self._heads(project)
            for name in (source, target):
                if name not in heads:
                    raise ConfigError(f"{project} has no branch {name!r}", f"it has {', '.join(sorted(heads)[:10]) or 'none'}")
            if source == target:
                raise ConfigError(f"{source} can't be proposed for itself", "push your change to a branch of its own")
            if self._git(project).contains(heads[target], heads[source]):
                raise ConfigError(f"{source} has nothing that {target} has not", "commit and push first")
            twin = next((r for r in self.of(project) if r.state is RequestState.OPEN and (r.source, r.target) == (source, target)), None)
            if twin is not None:
                raise ConfigError(f"{source} is proposed for {target} already: change request {twin.number}")
            revision = self.line.repositories.revision(project, heads[source])
            number = 1 + max((r.number for r in self.of(project)), default=0)
            title = title or (revision.title if revision is not None else source)
            new = ChangeRequest(
                0, project, number, title, source, target, author, heads[source], description, squash=squash,
                remove_source=remove_source, created_at=time.time(),
            )  # fmt: skip
            made = self.store.write(lambda tx: tx.add_document(new))
            return self._started(made)

    def moved(self, project: str, ref: str, sha: str) -> list[Run]:
        """Take in that a branch has moved: what is proposed from it is run anew, and wants to be approved anew. Return the runs."""
        started = []
        branch = ref.removeprefix("refs/heads/")
        with self.lock:
            for request in self.of(project):
                if request.state is not RequestState.OPEN or not ref.startswith("refs/heads/"):
                    continue
                if request.target == branch and self._git(project).contains(sha, request.sha):
                    self._save(replace(request, state=RequestState.MERGED, merged=sha, ended_at=time.time()))
                elif request.source == branch and request.sha != sha:
                    try:
                        after = self._started(replace(request, sha=sha, approved_by=(), when_green=""))
                    except TrunklineError as problem:  # the push itself must not suffer
                        log.warning("a change request could not be run", project=project, request=request.number, problem=problem.message)
                        continue
                    started += [self.line.run(number) for number in (after.run, *after.also)] if after.run != request.run else []
        return started

    def _save(self, request: ChangeRequest) -> ChangeRequest:
        self.store.write(lambda tx: tx.save_document(request))
        self.line.hub.publish(f"project:{request.project}", {"request": request.number})
        return request

    def _started(self, request: ChangeRequest) -> ChangeRequest:
        """Start the request's run, if its jobs want one."""
        git = self._git(request.project)
        git.move(f"refs/merge-requests/{request.number}/head", request.sha)
        event, project = self._event(request), self.store.read(lambda tx: tx.find_project(request.project))
        assert project is not None
        runs = self.line.accept_all(project, event, only_with_jobs=True)
        if runs:
            request = replace(request, run=runs[0].id, also=tuple(run.id for run in runs[1:]))
        self._save(request)
        self.line.pump()
        return request

    def _event(self, request: ChangeRequest) -> Event:
        """Return the event of a request: of the merged result where the target has gone on and nothing conflicts."""
        git, project = self._git(request.project), request.project
        target = self._heads(project).get(request.target, "")
        base = git.base(target, request.sha) if target else ""
        sha, kind = request.sha, "detached"
        if base and base != target:
            tree, _ = git.tree(target, request.sha)
            if tree:
                sha, kind = git.commit(tree, (target, request.sha), f"Merge {request.sha} into {target}", "Trunkline"), "merged_result"
                git.move(f"refs/merge-requests/{request.number}/merge", sha)
        revision = self.line.repositories.revision(project, sha)
        if revision is None:
            raise ConfigError(f"{sha[:8]} of {project} is no commit")
        proposal = Proposal(
            number=request.number, title=request.title, description=request.description, target=request.target, author=request.author, kind=kind,
            base=base, source_sha=request.sha, target_sha=target if kind == "merged_result" else "", is_approved=self._is_approved(request),
            is_draft=request.is_draft, squash=request.squash,
        )  # fmt: skip
        changed = git.changed(base, request.sha) if base else None
        return Event(
            EventKind.CHANGE_REQUEST, request.source, revision, changed=changed, target=request.target,
            user=request.author, proposal=proposal,
        )  # fmt: skip

    # how it stands

    def standing(self, request: ChangeRequest) -> Standing:
        """Say how a request stands."""
        git, heads = self._git(request.project), self._heads(request.project)
        target = heads.get(request.target, "")
        base = git.base(target, request.sha) if target else ""
        if request.state is RequestState.MERGED and request.run:
            base = git.base(request.sha, f"{request.merged}^") or base
        rows = self.store.read(lambda tx: tx.run_rows(request.project, 200))
        own = [r for r in rows if r.id == request.run or r.id in request.also]
        run = min(own, key=lambda r: _BAD_FIRST.get(r.status, 1), default=None) or next(
            (r for r in rows if r.sha == request.sha and r.ref == request.source and r.source == "push"), None
        )
        conflicts: tuple[str, ...] = ()
        obstacle, waits = "", False
        if request.state is not RequestState.OPEN:
            obstacle = f"it is {request.state.value}"
        elif not target or request.source not in heads:
            obstacle = f"the branch {request.source if target else request.target} is gone"
        else:
            tree, conflicts = git.tree(target, request.sha)
            missing = self.required_approvals - len(request.approved_by)
            if not tree:
                obstacle = "it conflicts with " + request.target + (f": {', '.join(conflicts[:5])}" if conflicts else "")
            elif request.is_draft:
                obstacle = "it is a draft"
            elif missing > 0:
                obstacle, waits = f"it needs {missing} more approval{'s' if missing > 1 else ''}", True
            elif (run is not None and run.status in ("created", "queued", "running")) or (
                run is not None and run.status not in ("passed", "skipped")
            ):
                obstacle, waits = f"run {run.number} is {run.status}", True
        return Standing(request, base, conflicts, run, obstacle, waits)

    def files(self, standing: Standing) -> tuple[FileChange, ...]:
        """Return what a request changes."""
        return self._git(standing.request.project).files(standing.base, standing.request.sha) if standing.base else ()

    def diff(self, standing: Standing, path: str) -> list[str]:
        """Return the changed lines of a file."""
        return self._git(standing.request.project).diff(standing.base, standing.request.sha, path)

    def commits(self, standing: Standing) -> list[tuple[str, str, str]]:
        """Return (sha, title, author) of its commits."""
        return self._git(standing.request.project).commits(standing.base, standing.request.sha) if standing.base else []

    def _is_approved(self, request: ChangeRequest) -> bool:
        return len(request.approved_by) >= max(1, self.required_approvals)

    # what people do

    def _opened(self, project: str, number: int) -> ChangeRequest:
        request = self.find(project, number)
        if request.state is not RequestState.OPEN:
            raise ConfigError(f"change request {number} is {request.state.value}")
        return request

    def approve(self, project: str, number: int, by: str) -> ChangeRequest:
        """Approve what is proposed now; not one's own."""
        with self.lock:
            request = self._opened(project, number)
            if by == request.author:
                raise Refused("who proposes a change can't approve it", "ask somebody else")
            if by in request.approved_by:
                return request
            self._save(replace(request, approved_by=(*request.approved_by, by)))
            self._merge_if_wanted(project, number)
            return self.find(project, number)

    def act(self, project: str, number: int, action: str, by: str) -> ChangeRequest:
        """Approve, close, reopen or ready, by its name; raises ConfigError."""
        if action == "approve":
            return self.approve(project, number, by)
        acts = {"close": self.close, "reopen": self.reopen, "ready": self.ready}
        if action not in acts:
            raise ConfigError(f"a change request can't {action}")
        return acts[action](project, number)

    def close(self, project: str, number: int) -> ChangeRequest:
        """Close it without merging."""
        with self.lock:
            return self._save(replace(self._opened(project, number), state=RequestState.CLOSED, ended_at=time.time(), when_green=""))

    def reopen(self, project: str, number: int) -> ChangeRequest:
        """Open a closed one again."""
        with self.lock:
            request = self.find(project, number)
            head = self._heads(project).get(request.source)
            if request.state is not RequestState.CLOSED or head is None:
                raise ConfigError(
                    f"change request {number} can't be opened again: " + ("its branch is gone" if head is None else "it is not closed")
                )
            return self._started(replace(request, state=RequestState.OPEN, ended_at=None, sha=head))

    def ready(self, project: str, number: int) -> ChangeRequest:
        """Take the word Draft from its title."""
        with self.lock:
            request = self._opened(project, number)
            title = (
                request.title[7:]
                if request.is_draft and request.title[0] in "[("
                else request.title.partition(":")[2]
                if request.is_draft
                else request.title
            )
            return self._save(replace(request, title=title.strip()))

    def merge(self, project: str, number: int, by: str, when_green: bool = False) -> ChangeRequest:
        """Merge now, or as soon as nothing is in the way any more; raises ConfigError with what is in the way."""
        with self.lock:
            request = self._opened(project, number)
            standing = self.standing(request)
            if when_green and standing.waits:
                return self._save(replace(request, when_green=by))
            if not standing.can_merge:
                hint = "--when-green waits for it" if standing.waits else ""
                raise ConfigError(f"change request {number} can't be merged: {standing.obstacle}", hint)
            return self._merged(request, by)

    def _merged(self, request: ChangeRequest, by: str) -> ChangeRequest:
        git, heads = self._git(request.project), self._heads(request.project)
        target = heads[request.target]
        tree, _ = git.tree(target, request.sha)
        about = f"{request.title}\n\n" + (f"{request.description}\n\n" if request.description else "") + f"Change request: {request.number}"
        if request.squash:
            sha = git.commit(tree, (target,), about, request.author)
        else:
            sha = git.commit(tree, (target, request.sha), f"Merge branch '{request.source}' into '{request.target}'\n\n{about}", by)
        if not git.move(f"refs/heads/{request.target}", sha, target):
            raise ConfigError(f"{request.target} has moved meanwhile", "try again")
        done = self._save(replace(request, state=RequestState.MERGED, merged=sha, merged_by=by, ended_at=time.time(), when_green=""))
        log.info("a change request is merged", project=request.project, request=request.number, by=by)
        if request.remove_source:
            git.remove(f"refs/heads/{request.source}")
        self.line.take_refs(request.project, by)
        return done

    def green(self, run: Run) -> None:
        """Merge what waited for this run."""
        for request in self.of(run.project):
            if request.state is RequestState.OPEN and request.when_green and run.event.ref == request.source:
                self._merge_if_wanted(run.project, request.number)

    def _merge_if_wanted(self, project: str, number: int) -> None:
        with self.lock:
            request = self.find(project, number)
            if request.when_green and request.state is RequestState.OPEN and self.standing(request).can_merge:
                try:
                    self._merged(request, request.when_green)
                except TrunklineError as problem:
                    log.warning("a change request could not be merged", project=project, request=number, problem=problem.message)
