"""Projects that live at another forge: fetched when a hook tells or by looking now and then; how their runs stand is told there.

Hooks are checked at once and worked by one thread, so that the forge need not wait; what is told of commits goes out by another, each thing a few times.
"""

import base64
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from trunkline.kit import processes
from trunkline.kit.ids import token as make_token
from trunkline.kit.record import replace
from trunkline.kit.words import duration
from trunkline.model.errors import ConfigError, OutsideError, Refused, TrunklineError
from trunkline.model.events import Event, EventKind, Proposal
from trunkline.model.mirrors import Call, CommitStatus, Happened, Mirror, Standing
from trunkline.model.runs import Run, Status
from trunkline.pipeline.workflows.triggers import names_of
from trunkline.ports.store import Store
from trunkline.server.line import Line
from trunkline.server.merging import Merging
from trunkline.server.sealing import Sealer
from trunkline.wiring import builtin

STARTS = ("opened", "synchronize", "reopened")
TRIES, PAUSE = 4, 2.0  # of one status; the pause doubles, in seconds
SECONDS = 15.0  # of one request
_STANDINGS = {
    Status.PASSED: Standing.SUCCESS,
    Status.SKIPPED: Standing.SUCCESS,
    Status.FAILED: Standing.FAILURE,
    Status.CANCELED: Standing.ERROR,
    Status.RUNNING: Standing.RUNNING,
}

log = structlog.get_logger()


class Mirrors:
    """All mirrors of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, line: Line, sealer: Sealer) -> None:
        self.store, self.line, self.sealer = store, line, sealer
        self.heard: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[tuple[Call, int] | None] = queue.SimpleQueue()
        self.locks: dict[str, threading.Lock] = {}
        self.said: dict[tuple[int, str], str] = {}  # what was told last, by run and context
        self.known: dict[str, Mirror] = {}
        self.reload()
        for name, work in (("mirrors", self._work), ("statuses", self._tell_all)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def reload(self) -> None:
        """Read which there are: another server may have changed them."""
        self.known = {m.project: m for m in self.store.read(lambda tx: tx.documents(Mirror))}

    def close(self) -> None:
        """End the threads; what they had not begun is begun anew by the next look."""
        self.heard.put(None)
        self.told.put(None)

    # which there are

    def of(self, project: str) -> Mirror:
        """Return a project's; raises ConfigError."""
        if project not in self.known:
            raise ConfigError(f"{project} is no mirror", "trunkline mirror add URL makes one")
        return self.known[project]

    def all(self) -> list[Mirror]:
        """Return all, by project."""
        return [self.known[name] for name in sorted(self.known)]

    def origin(self, project: str) -> str:
        """Return where a project lives, "" for one that lives here."""
        return self.known[project].url if project in self.known else ""

    def add(
        self, project: str, url: str, forge: str = "", api: str = "", token: str = "", secret: str = "", poll: float = 0.0
    ) -> tuple[Mirror, str]:
        """Make one, or change it; return it and the secret for its hooks. Raises ConfigError and OutsideError (the repository can't be fetched)."""
        kind = builtin.forge(forge or _guessed(url))
        found_api, far = kind.place(url) if "://" in url or ":" in url else ("", "")
        secret = secret or make_token("tlh_")
        new = Mirror(
            0, project, kind.name, url, (api or found_api).rstrip("/"), far, self.sealer.seal(token), self.sealer.seal(secret), poll
        )
        known = self.known.get(project)
        if known is None and self.store.read(lambda tx: tx.find_project(project)) is not None:
            raise ConfigError(f"{project} is there already, and no mirror", "choose another name: a mirror would overwrite its branches")
        self.line.repositories.create(project)
        self._fetch(new)
        new = replace(new, id=known.id, heads=known.heads) if known is not None else self.store.write(lambda tx: tx.add_document(new))
        self._keep(new)
        self.line.take_refs(project, "")
        return new, secret

    def remove(self, project: str) -> None:
        """Let a project live here from now on."""
        found = self.of(project)
        self.store.write(lambda tx: tx.remove_document(found))
        self.known.pop(project)

    def _keep(self, mirror: Mirror) -> Mirror:
        self.store.write(lambda tx: tx.save_document(mirror))
        self.known[mirror.project] = mirror
        return mirror

    # what comes in

    def hook(self, project: str, headers: Mapping[str, str], body: bytes) -> str:
        """Check and take a hook; return what will be done. Raises Refused and ConfigError."""
        mirror = self.of(project)
        happened = builtin.forge(mirror.forge).heard(headers, body, self.sealer.open(mirror.sealed_secret))
        if not happened.name:
            return happened.because
        self.heard.put(lambda: self.take(project, happened))
        return f"{happened.name} {happened.action} of {happened.ref or project}".replace("  ", " ")

    def _work(self) -> None:
        while (work := self.heard.get()) is not None:
            try:
                work()
            except Exception as problem:  # noqa: BLE001 - the thread must go on, whatever one hook held
                log.warning("what a forge told could not be worked", problem=getattr(problem, "message", str(problem)))

    def take(self, project: str, happened: Happened) -> list[Run]:
        """Fetch, and start what an event starts; what goes wrong is kept with the mirror."""
        with self.locks.setdefault(project, threading.Lock()):
            mirror = self.of(project)
            try:
                self._fetch(mirror)
                started = self.line.take_refs(project, happened.user)
                if happened.proposal is not None:
                    started += self._proposed(self.of(project), happened)
                elif happened.name != "push":
                    started += self._other(project, happened)
            except TrunklineError as problem:
                self._keep(replace(self.of(project), problem=problem.message, at=time.time()))
                raise
            self._keep(replace(self.of(project), problem="", at=time.time()))
            return started

    def _other(self, project: str, happened: Happened) -> list[Run]:
        known = self.store.read(lambda tx: tx.find_project(project))
        assert known is not None
        if not self.line.planner.knows_workflows(known):
            return []
        event = self.line.planner.event(project, happened.ref or known.default_branch, happened.user)
        kinds = {"workflow_dispatch": EventKind.MANUAL, "repository_dispatch": EventKind.TRIGGER}
        told = json.loads(happened.payload) if happened.payload else {}
        inputs = told.get("inputs") if happened.name == "workflow_dispatch" else None
        pairs = tuple((n, v if isinstance(v, str) else json.dumps(v)) for n, v in inputs.items()) if isinstance(inputs, dict) else ()
        return self._accepted(
            project,
            replace(
                event,
                kind=kinds.get(happened.name, EventKind.API),
                name=happened.name,
                payload=happened.payload,
                changed=None,
                variables=pairs,
            ),
        )

    def _proposed(self, mirror: Mirror, happened: Happened) -> list[Run]:
        """Run what is proposed: the merged result where the target has gone on, as change requests of this server are run."""
        p, project, forge = happened.proposal, mirror.project, builtin.forge(mirror.forge)
        assert p is not None
        if happened.action == "closed":
            self._keep(replace(mirror, heads=tuple(h for h in mirror.heads if h[0] != str(p.number))))
        seen = dict(mirror.heads)
        if happened.action in STARTS and seen.get(str(p.number)) == p.source_sha:
            return []
        known = self.store.read(lambda tx: tx.find_project(project))
        assert known is not None
        if happened.action not in STARTS and not self.line.planner.knows_workflows(known):
            return []
        kept = f"refs/merge-requests/{p.number}/head"
        source = forge.head(p.number) or f"refs/heads/{happened.ref}"
        url = mirror.url
        if happened.fetch_from:
            url = f"{mirror.url.partition('://')[0]}://{mirror.url.partition('://')[2].partition('/')[0]}/{happened.fetch_from}.git"
        self._git_fetch(mirror, url, f"+{source}:{kept}")
        git = Merging(self.line.repositories.git_dir(project))
        heads = self.line.repositories.refs(project)
        target = heads.get(f"refs/heads/{p.target}", "")
        revision = self.line.repositories.revision(project, kept)
        if revision is None or not target:
            raise ConfigError(f"change request {p.number} of {project}: {'its branch' if revision is None else p.target} is not there")
        head, base, kind = revision.sha, git.base(target, revision.sha), "detached"
        if base and base != target:
            tree, _ = git.tree(target, head)
            if tree:
                merged = git.commit(tree, (target, head), f"Merge {head} into {target}", "Trunkline")
                git.move(f"refs/merge-requests/{p.number}/merge", merged)
                revision, kind = self.line.repositories.revision(project, merged) or revision, "merged_result"
        proposal: Proposal = replace(p, base=base, source_sha=head, target_sha=target, kind=kind)
        event = Event(
            EventKind.CHANGE_REQUEST, happened.ref, revision, changed=git.changed(base, head) if base else None, target=p.target, user=happened.user,
            proposal=proposal, trusted=not happened.is_fork, payload=happened.payload or json.dumps({"action": happened.action}),
        )  # fmt: skip
        if happened.action in STARTS:
            self._keep(replace(self.of(project), heads=tuple({**seen, str(p.number): p.source_sha or head}.items())))
        return self._accepted(project, event)

    def _accepted(self, project: str, event: Event) -> list[Run]:
        with self.line.lock:
            known = self.store.read(lambda tx: tx.find_project(project))
            assert known is not None
            started = self.line.accept_all(known, event, only_with_jobs=True)
            self.line.pump()
            return started

    def approve(self, run_id: int, by: str) -> list[Run]:
        """Run a stranger's change again, now with the secrets of the project; raises ConfigError."""
        run = self.line.run(run_id)
        if run.event.trusted:
            raise ConfigError(f"run {run.number} had all that it may have: its change is none of a stranger")
        log.info("a stranger's change is run with secrets", project=run.project, run=run.number, by=by)
        return self._accepted(run.project, replace(run.event, trusted=True))

    # looking by itself

    def sync(self, project: str) -> list[Run]:
        """Look at the forge now: branches, tags, open change requests."""
        mirror = self.of(project)
        started = self.take(project, Happened("push"))
        forge = builtin.forge(mirror.forge)
        if mirror.api:
            try:
                found = forge.proposed(_asked(forge.proposals(mirror, self.sealer.open(mirror.sealed_token))))
            except OutsideError as problem:
                self._keep(replace(self.of(project), problem=problem.message))
                raise
            for one in found:
                started += self.take(project, one)
        return started

    def tick(self, now: float) -> None:
        """Look at those whose time has come."""
        for mirror in self.all():
            if mirror.poll and mirror.at + mirror.poll <= now:
                self._keep(replace(mirror, at=now))
                self.heard.put(lambda project=mirror.project: self.sync(project))  # type: ignore[misc]

    # git

    def _fetch(self, mirror: Mirror) -> None:
        self._git_fetch(mirror, mirror.url, "--prune", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        git_dir = self.line.repositories.git_dir(mirror.project)
        code, told = processes.output(["git", "ls-remote", "--symref", "--", mirror.url, "HEAD"], env=self._env(mirror))
        head = told.decode("utf-8", "replace").partition("ref: ")[2].partition("\t")[0]
        if code == 0 and head.startswith("refs/heads/"):
            processes.output(["git", f"--git-dir={git_dir}", "symbolic-ref", "HEAD", head])

    def _env(self, mirror: Mirror) -> dict[str, str]:
        env = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")} | {"GIT_TERMINAL_PROMPT": "0"}
        token = self.sealer.open(mirror.sealed_token)
        if token and mirror.url.startswith(("http://", "https://")):
            login = base64.b64encode(builtin.forge(mirror.forge).login(token).encode()).decode()
            env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader", "GIT_CONFIG_VALUE_0": f"Authorization: Basic {login}"}
        return env

    def _git_fetch(self, mirror: Mirror, url: str, *words: str) -> None:
        options = [w for w in words if w.startswith("--")]
        refs = [w for w in words if not w.startswith("--")]
        git_dir = self.line.repositories.git_dir(mirror.project)
        code, _ = processes.output(
            ["git", f"--git-dir={git_dir}", "fetch", "--quiet", "--no-tags", *options, "--", url, *refs], env=self._env(mirror)
        )
        if code:
            raise OutsideError(f"{url} can't be fetched", "is the address right, and does the token allow it? git ls-remote shows why")

    # what goes back

    def tell(self, run: Run) -> None:
        """Tell the forge how a run stands. Costs nothing for projects that live here."""
        mirror = self.known.get(run.project)
        if mirror is None or not mirror.api or not mirror.sealed_token or run.parent is not None:
            return
        name = run.name or "pipeline"
        event = next((j.job.workflow.event for j in run.jobs if j.job.workflow is not None), run.event.kind.value)
        context = f"trunkline/{name} ({event})"
        standing = _STANDINGS.get(run.status, Standing.PENDING)
        key, said = (run.id, context), f"{standing.value}: {reason(run)}"
        if self.said.get(key) == said:
            return
        if len(self.said) > 10_000:
            self.said.clear()
        self.said[key] = said
        status = CommitStatus(_sha(run.event), standing, context, reason(run), f"{self.line.url}/{run.project}/runs/{run.number}")
        self._say(mirror, status)

    def tell_filtered(self, project: str, event: Event, name: str, because: str) -> None:
        """Tell the forge that a workflow has nothing to do for a commit: who waits for its status must not wait for ever."""
        mirror = self.known.get(project)
        if mirror is not None and mirror.api and mirror.sealed_token:
            context = f"trunkline/{name} ({names_of(event)[0]})"
            self._say(
                mirror, CommitStatus(_sha(event), Standing.SUCCESS, context, f"nothing to do: {because}", f"{self.line.url}/{project}")
            )

    def _say(self, mirror: Mirror, status: CommitStatus) -> None:
        try:
            call = builtin.forge(mirror.forge).status(mirror, self.sealer.open(mirror.sealed_token), status)
        except TrunklineError as problem:
            log.warning("a status could not be made", project=mirror.project, problem=problem.message)
            return
        self.told.put((call, 0))

    def _tell_all(self) -> None:
        while (one := self.told.get()) is not None:
            call, tried = one
            try:
                _asked(call)
            except Refused as problem:
                log.warning("the forge refuses a status", url=call.url, problem=problem.message)
            except TrunklineError as problem:
                if tried + 1 < TRIES:
                    threading.Timer(PAUSE * 2**tried, self.told.put, ((call, tried + 1),)).start()
                else:
                    log.warning("a status could not be told", url=call.url, problem=problem.message)


def _sha(event: Event) -> str:
    """Return the commit that people look at: of a change request its own, not the merged result."""
    return event.proposal.source_sha if event.proposal is not None and event.proposal.source_sha else event.revision.sha


def reason(run: Run) -> str:
    """Return in one line how a run stands, and why."""
    failed = [j for j in run.jobs if j.status is Status.FAILED and not j.may_fail]
    if run.status is Status.FAILED:
        if not failed:
            return next((d.because for d in run.decisions if not d.job), "the pipeline has mistakes")
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{failed[0].name}: {failed[0].message or 'failed'}{more}"
    if run.status is Status.PASSED:
        took = (run.finished_at or 0) - run.created_at
        return f"{len(run.jobs)} jobs passed in {duration(took)}" if len(run.jobs) > 1 else f"passed in {duration(took)}"
    words = {Status.SKIPPED: "nothing to do", Status.CANCELED: "canceled", Status.RUNNING: "running", Status.MANUAL: "waits for somebody"}
    return words.get(run.status, "queued")


def _guessed(url: str) -> str:
    """Return the forge that an address suggests; raises ConfigError."""
    for host, name in (("github", "github"), ("gitlab", "gitlab"), ("bitbucket.org", "bitbucket"), ("bitbucket", "bitbucket-server"), ("gitea", "gitea"),
                       ("forgejo", "gitea"), ("codeberg.org", "gitea")):  # fmt: skip
        if host in url.partition("://")[2].partition("/")[0] or host in url.partition(":")[0]:
            return name
    raise ConfigError(f"what kind of forge {url} is can't be told", f"--forge, one of {', '.join(builtin.FORGES)}")


def _asked(call: Call) -> Any:
    """Ask; return the answer out of JSON. Raises Refused for an answer that will stay so, OutsideError for one that may change."""
    request = urllib.request.Request(call.url, method=call.method, headers={"Accept": "application/json", **dict(call.headers)})  # noqa: S310
    if call.body is not None:
        request.data = json.dumps(call.body).encode()
        request.add_header("Content-Type", "application/json")
    if not call.url.startswith(("http://", "https://")):
        raise Refused(f"{call.url} is no address of a REST API")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310 - http or https, said by an administrator
            body = reply.read(16 << 20)
            return json.loads(body) if body else None
    except urllib.error.HTTPError as refusal:
        with refusal:
            said = refusal.read(300).decode("utf-8", "replace")
        problem = f"{call.method} {call.url} answered {refusal.code}: {said}"
        if refusal.code in (401, 403, 404, 422, 400):
            raise Refused(problem, "is the token right, and may it set commit statuses?") from None
        raise OutsideError(problem) from None
    except (OSError, ValueError) as problem_:
        raise OutsideError(f"{call.url} does not answer: {problem_}") from None
