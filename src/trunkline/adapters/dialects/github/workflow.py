"""One workflow file, read and checked from top to bottom. Mistakes are collected; what can be read is returned."""

import re

from trunkline.adapters.dialects.github import words
from trunkline.adapters.dialects.github.checked import ID, Checked, has_expression
from trunkline.adapters.dialects.github.events import EventReader, InputRead
from trunkline.kit import yamltree
from trunkline.kit.record import record
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node, YamlMistake
from trunkline.model import expressions
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.reading import Mistakes, place

_ACTION = re.compile(r"[\w.-]+/[\w.-]+(?:/[^@]+)?@.+")
MAX_ID = 99


@record
class StepRead:
    """A step: what it runs, or uses with what is `given`."""

    id: str
    name: str
    run: str
    uses: str
    line: int
    given: "tuple[tuple[str, Node], ...]" = ()


@record
class JobRead:
    """A job: its steps, or the workflow that it calls with what is `given`."""

    id: str
    name: str
    needs: tuple[str, ...]
    runs_on: tuple[str, ...]
    uses: str
    steps: tuple[StepRead, ...]
    has_strategy: bool
    place: Place
    given: tuple[tuple[str, Node], ...] = ()
    secrets: tuple[tuple[str, Node], ...] = ()
    inherits_secrets: bool = False
    permissions: tuple[tuple[str, str], ...] | None = None


@record
class Workflow:
    """What a file says. `events` are the names under `on`; `inputs` and `secrets` (with whether they must be given) are those of workflow_call;
    `permissions` are scopes with their levels, `*` for all, None where nothing is said."""

    file: str
    name: str
    events: tuple[str, ...]
    jobs: tuple[JobRead, ...]
    inputs: tuple[InputRead, ...] = ()
    secrets: tuple[tuple[str, bool], ...] = ()
    permissions: tuple[tuple[str, str], ...] | None = None


def read_document(file: str, text: str) -> tuple[Node | None, tuple[Diagnostic, ...]]:
    """Return the one document of a file, or why there is none."""
    try:
        documents = yamltree.read(text, file, is_core=True)
    except YamlMistake as mistake:
        return None, (Diagnostic(Severity.ERROR, "yaml", mistake.message, Place(file, mistake.line, mistake.column), mistake.hint),)
    if not documents or documents[0].value is None:
        return None, (Diagnostic(Severity.ERROR, "yaml", "the file is empty", Place(file)),)
    if len(documents) > 1:
        at = place(documents[1])
        return None, (Diagnostic(Severity.ERROR, "yaml", "a second YAML document begins here; such a file has one", at),)
    return documents[0], ()


def read(file: str, text: str) -> tuple[Workflow | None, tuple[Diagnostic, ...]]:
    """Read a workflow; None where a mistake leaves none."""
    document, found = read_document(file, text)
    if document is None:
        return None, found
    m = Mistakes()
    workflow = _Reader(m, file).workflow(document)
    return (None if m.has_errors else workflow), tuple(m.found)


def read_steps(node: Node, where: str, m: Mistakes, allowed: str) -> tuple[StepRead, ...]:
    """Read a list of steps whose expressions may name what `allowed` says: those of a composite action."""
    return _Reader(m, node.file, allowed).steps(node, where)


class _Reader:
    def __init__(self, m: Mistakes, file: str, in_steps: str = "step") -> None:
        self.in_steps = in_steps  # what expressions of steps may name
        self.m, self.file, self.c = m, file, Checked(m)
        self.on = EventReader(m, self.c)

    def workflow(self, document: Node) -> Workflow:
        m, c = self.m, self.c
        top = m.mapping(document, "workflow", words.TOP)
        for word in ("on", "jobs"):
            if word not in top and isinstance(document.value, dict):
                m.error(
                    document,
                    "workflow",
                    f"the workflow has no {word}",
                    "on: push" if word == "on" else "jobs: {build: {runs-on: ubuntu-latest, steps: []}}",
                )
        name = c.text(top["name"], "name") if "name" in top else ""
        if "description" in top:
            c.text(top["description"], "description")
        if "run-name" in top:
            c.text(top["run-name"], "run-name", "run-name")
        if "env" in top:
            c.pairs(top["env"], "env", "env")
        permissions = self.permissions(top["permissions"]) if "permissions" in top else None
        if "defaults" in top:
            self.defaults(top["defaults"], "concurrency")
        if "concurrency" in top:
            self.concurrency(top["concurrency"], "concurrency")
        events = self.on.read(top["on"]) if "on" in top else ()
        jobs = self.jobs(top["jobs"]) if "jobs" in top else ()
        return Workflow(self.file, name, events, jobs, tuple(self.on.inputs), tuple(self.on.secrets), permissions)

    # what several places share

    def permissions(self, node: Node) -> tuple[tuple[str, str], ...]:
        m, found = self.m, []
        if not isinstance(node.value, dict):
            if node.value is None:
                m.error(node, "permissions", "permissions is empty", "read-all, write-all, {} or one scope a line")
            else:
                word = m.choice(node, "permissions", ("read-all", "write-all"))
                return (("*", word.partition("-")[0]),) if word else ()
            return ()
        for scope, item in m.mapping(node, "permissions", words.SCOPES).items():
            if scope in words.SCOPES:
                levels = ("write", "none") if scope == "id-token" else ("read", "none") if scope == "models" else ("read", "write", "none")
                level = m.choice(item, f"permissions.{scope}", levels)
                if level:
                    found.append((scope, level))
        return tuple(found)

    def defaults(self, node: Node, allowed: str) -> None:
        parts = self.m.mapping(node, "defaults", ("run",)) if node.value is not None else {}
        run = self.m.mapping(parts["run"], "defaults.run", ("shell", "working-directory")) if "run" in parts else {}
        for name, item in run.items():
            self.c.text(item, f"defaults.run.{name}", allowed, needed=True)

    def concurrency(self, node: Node, allowed: str) -> None:
        if not isinstance(node.value, dict):
            self.c.text(node, "concurrency", allowed, needed=True)
            return
        parts = self.m.mapping(node, "concurrency", ("group", "cancel-in-progress", "queue"))
        if "group" not in parts:
            self.m.error(node, "concurrency", "concurrency has no group", "group: ${{ github.workflow }}-${{ github.ref }}")
        else:
            self.c.text(parts["group"], "concurrency.group", allowed, needed=True)
        if "cancel-in-progress" in parts:
            self.c.flag(parts["cancel-in-progress"], "concurrency.cancel-in-progress", allowed)

    # jobs

    def jobs(self, node: Node) -> tuple[JobRead, ...]:
        m = self.m
        found: list[JobRead] = []
        seen: dict[str, str] = {}
        listed = m.mapping(node, "jobs")
        if not listed and isinstance(node.value, dict):
            m.error(node, "jobs", "the workflow has no jobs")
        for id_, item in listed.items():
            self.check_id(node.keys[id_], id_, f"job {id_!r}")
            if id_.lower() in seen:
                m.error(node.keys[id_], "jobs", f"job {id_!r} is there already, as {seen[id_.lower()]!r}: ids differ by more than case")
            seen[id_.lower()] = id_
            found.append(self.job(id_, node.keys[id_], item))
        self.check_needs(found, seen, node)
        return tuple(found)

    def check_id(self, node: Node, id_: str, where: str) -> None:
        if not isinstance(node.value, str) or not ID.fullmatch(id_):
            self.m.error(node, "id", f"{where}: an id begins with a letter or _ and has only letters, digits, _ and -")
        elif id_.startswith("__"):
            self.m.error(node, "id", f"{where}: ids that begin with __ are GitHub's own")
        elif len(id_) > MAX_ID:
            self.m.error(node, "id", f"{where}: an id has at most {MAX_ID} characters, this one {len(id_)}")

    def check_needs(self, jobs: list[JobRead], seen: dict[str, str], node: Node) -> None:
        m = self.m
        ids = {job.id.lower(): job for job in jobs}
        for job in jobs:
            at = Node(None, job.place.line, job.place.column, job.place.width, file=job.place.file)
            for need in job.needs:
                if need.lower() not in ids:
                    m.error(at, "needs", f"job {job.id!r} needs {need!r}, but no job has that id", did_you_mean(need, seen.values()))
        if jobs and all(job.needs for job in jobs):
            m.error(node, "needs", "every job needs another: none can begin", "at least one job must have no needs")
            return
        state: dict[str, int] = {}
        for start in ids:
            stack = [(start, iter(ids[start].needs))] if start not in state else []
            while stack:
                here, rest = stack[-1]
                state[here] = 1
                following = next((n.lower() for n in rest if n.lower() in ids), None)
                if following is None:
                    state[here] = 2
                    stack.pop()
                elif state.get(following) == 1:
                    job = ids[here]
                    m.error(
                        Node(None, job.place.line, job.place.column, file=job.place.file),
                        "needs",
                        f"the needs form a circle: {job.id} -> {ids[following].id}",
                    )
                    return
                elif following not in state:
                    stack.append((following, iter(ids[following].needs)))

    def job(self, id_: str, key: Node, node: Node) -> JobRead:
        m, c = self.m, self.c
        where = f"job {id_!r}"
        is_call = isinstance(node.value, dict) and "uses" in node.value and "runs-on" not in node.value
        own = m.mapping(node, where, words.CALLING_JOB if is_call else words.JOB)
        needs = tuple(n for n in c.texts(own["needs"], f"{where}: needs") if n) if "needs" in own else ()
        if "name" in own:
            c.text(own["name"], f"{where}: name", "job")
        if "if" in own:
            c.condition(own["if"], f"{where}: if", "job.if")
        permissions = self.permissions(own["permissions"]) if "permissions" in own else None
        if "concurrency" in own:
            self.concurrency(own["concurrency"], "job")
        if "strategy" in own:
            self.strategy(own["strategy"], f"{where}: strategy")
        runs_on: tuple[str, ...] = ()
        steps: tuple[StepRead, ...] = ()
        uses, handed = "", ((), (), False)  # type: str, tuple[Nodes, Nodes, bool]
        if is_call:
            uses = c.text(own["uses"], f"{where}: uses", needed=True)
            if uses and not re.fullmatch(r"\./[^@]+\.ya?ml|[\w.-]+/[\w.-]+/.+\.ya?ml@.+", uses):
                m.error(
                    own["uses"],
                    "uses",
                    f"{where}: {uses!r} names no workflow",
                    "./.github/workflows/x.yml, or owner/repository/.github/workflows/x.yml@ref",
                )
            if "with" in own:
                c.pairs(own["with"], f"{where}: with", "job")
            if "secrets" in own and own["secrets"].value != "inherit":
                c.pairs(own["secrets"], f"{where}: secrets", "job.secrets")
            handed = (_items(own.get("with")), _items(own.get("secrets")), "secrets" in own and own["secrets"].value == "inherit")
        elif isinstance(node.value, dict):
            runs_on, steps = self.own_job(own, key, where)
        return JobRead(id_, c.text(own["name"], "", "job") if "name" in own and not has_expression(own["name"]) else id_, needs, runs_on, uses, steps,
                       "strategy" in own, place(key), *handed, permissions)  # fmt: skip

    def own_job(self, own: dict[str, Node], key: Node, where: str) -> tuple[tuple[str, ...], tuple[StepRead, ...]]:
        m, c = self.m, self.c
        runs_on: tuple[str, ...] = ()
        if "runs-on" not in own:
            m.error(key, "runs-on", f"{where} does not say where it runs", "runs-on: ubuntu-latest")
        elif isinstance(own["runs-on"].value, dict):
            parts = m.mapping(own["runs-on"], f"{where}: runs-on", ("group", "labels"))
            runs_on = c.texts(parts["labels"], f"{where}: runs-on.labels", "job") if "labels" in parts else ()
            if "group" in parts:
                c.text(parts["group"], f"{where}: runs-on.group", "job")
        else:
            runs_on = c.texts(own["runs-on"], f"{where}: runs-on", "job")
        if "environment" in own:
            self.environment(own["environment"], where)
        for word, allowed in (("outputs", "job.outputs"), ("env", "job.env")):
            if word in own:
                c.pairs(own[word], f"{where}: {word}", allowed)
        if "defaults" in own:
            self.defaults(own["defaults"], "job.defaults")
        for word in ("timeout-minutes", "cancel-timeout-minutes"):
            if word in own:
                c.number(own[word], f"{where}: {word}", "job")
        if "continue-on-error" in own:
            c.flag(own["continue-on-error"], f"{where}: continue-on-error", "job")
        if "snapshot" in own:
            self.snapshot(own["snapshot"], f"{where}: snapshot")
        if "container" in own:
            self.container(own["container"], f"{where}: container", words.CONTAINER)
        if "services" in own and own["services"].value is not None and not has_expression(own["services"]):
            for name, item in c.mapping(own["services"], f"{where}: services").items():
                self.container(item, f"{where}: services.{name}", words.SERVICE, is_service=True)
        steps = self.steps(own["steps"], where) if "steps" in own else ()
        return runs_on, steps

    def snapshot(self, node: Node, where: str) -> None:
        if not isinstance(node.value, dict):
            self.c.text(node, where, needed=True)
            return
        parts = self.m.mapping(node, where, ("image-name", "version", "if"))
        if "image-name" not in parts:
            self.m.error(node, where, f"{where} has no image-name")
        for word in ("image-name", "version"):
            if word in parts:
                self.c.text(parts[word], f"{where}.{word}", needed=True)
        if "if" in parts:
            self.c.condition(parts["if"], f"{where}.if", "job.if")

    def environment(self, node: Node, where: str) -> None:
        if not isinstance(node.value, dict):
            self.c.text(node, f"{where}: environment", "job")
            return
        parts = self.m.mapping(node, f"{where}: environment", ("name", "url", "deployment"))
        if "name" not in parts:
            self.m.error(node, "environment", f"{where}: environment has no name")
        else:
            self.c.text(parts["name"], f"{where}: environment.name", "job", needed=True)
        if "url" in parts:
            self.c.text(parts["url"], f"{where}: environment.url", "job.environment.url")
        if "deployment" in parts:
            self.c.flag(parts["deployment"], f"{where}: environment.deployment", "job")

    def container(self, node: Node, where: str, known: tuple[str, ...], is_service: bool = False) -> None:
        m, c = self.m, self.c
        if not isinstance(node.value, dict):
            c.text(node, where, "job", needed=is_service)
            return
        parts = m.mapping(node, where, known)
        if "image" not in parts:
            m.error(node, where, f"{where} has no image", "image: python:3.12")
        else:
            c.text(parts["image"], f"{where}.image", "job", needed=not is_service)
        if "credentials" in parts and not has_expression(parts["credentials"]):
            for name, item in m.mapping(parts["credentials"], f"{where}.credentials", ("username", "password")).items():
                c.text(item, f"{where}.credentials.{name}", "container.credentials", needed=True)
        if "env" in parts:
            c.pairs(parts["env"], f"{where}.env", "container.env")
        for word in ("ports", "volumes"):
            if word in parts and not has_expression(parts[word]):
                if not isinstance(parts[word].value, list):
                    m.error(parts[word], where, f"{where}.{word} must be a list, this is {parts[word].kind}")
                else:
                    c.texts(parts[word], f"{where}.{word}", "job")
        for word in ("options", "entrypoint", "command"):
            if word in parts:
                c.text(parts[word], f"{where}.{word}", "job", needed=False)

    def strategy(self, node: Node, where: str) -> None:
        m, c = self.m, self.c
        if has_expression(node):
            c.expression(node, where, "job.strategy")
            return
        parts = m.mapping(node, where, ("matrix", "fail-fast", "max-parallel"))
        if "fail-fast" in parts:
            c.flag(parts["fail-fast"], f"{where}.fail-fast", "job.strategy")
        if "max-parallel" in parts:
            c.number(parts["max-parallel"], f"{where}.max-parallel", "job.strategy")
        if "matrix" in parts:
            self.matrix(parts["matrix"], f"{where}.matrix")

    def matrix(self, node: Node, where: str) -> None:
        m, c = self.m, self.c
        if has_expression(node):
            c.expression(node, where, "job.strategy")
            return
        legs = 1
        found = c.mapping(node, where)
        if not found and isinstance(node.value, dict):
            m.error(node, where, f"{where} has no axis", "python: ['3.11', '3.12']")
        for name, item in found.items():
            if "${{" in name:
                continue
            if has_expression(item):
                c.expression(item, f"{where}.{name}", "job.strategy")
                continue
            if not isinstance(item.value, list):
                m.error(item, where, f"{where}.{name} must be a list, this is {item.kind}")
                continue
            if not item.value and name not in ("include", "exclude"):
                m.error(item, where, f"{where}.{name} has no values")
            for value in item.value:
                if name in ("include", "exclude") and not isinstance(value.value, dict) and not has_expression(value):
                    m.error(value, where, f"{where}.{name} lists mappings, this is {value.kind}")
                self.any_value(value, f"{where}.{name}")
            legs *= max(1, len(item.value)) if name not in ("include", "exclude") else 1
        if legs > 256:
            m.error(node, where, f"{where} makes {legs} jobs; GitHub allows 256")

    def any_value(self, node: Node, where: str) -> None:
        """Check the expressions in a value of any shape."""
        if isinstance(node.value, dict):
            for item in node.value.values():
                self.any_value(item, where)
        elif isinstance(node.value, list):
            for item in node.value:
                self.any_value(item, where)
        elif has_expression(node):
            self.c.expression(node, where, "job.strategy")

    # steps

    def steps(self, node: Node, where: str) -> tuple[StepRead, ...]:
        m = self.m
        if not isinstance(node.value, list):
            m.error(node, "steps", f"{where}: steps must be a list, this is {node.kind}")
            return ()
        seen: dict[str, int] = {}
        found = []
        for number, item in enumerate(node.value, 1):
            step = self.step(item, f"{where}: step {number}")
            if step is None:
                continue
            if step.id and step.id.lower() in seen:
                m.error(item, "steps", f"{where}: step {number} has the id {step.id!r}, as step {seen[step.id.lower()]} has")
            seen[step.id.lower()] = number
            found.append(step)
        return tuple(found)

    def injection(self, node: Node, where: str) -> None:
        """Note what strangers can write and what would become part of a script."""
        try:
            tree = expressions.parse_text(str(node.value))
        except expressions.ExpressionMistake:
            return  # said already
        for path in sorted(expressions.paths_in(tree)):
            if any(re.fullmatch(pattern, path) for pattern in words.UNTRUSTED):
                hint = "give it to the script by env, and write it there in quotes"
                self.m.note(node, "injection", f"{where}: {path} is written by strangers and becomes part of the script", hint)

    def step(self, node: Node, where: str) -> StepRead | None:
        m, c = self.m, self.c
        own = m.mapping(node, where, words.STEP)
        if not own:
            if isinstance(node.value, dict):
                m.error(node, "steps", f"{where} is empty", "each step runs or uses something")
            return None
        does = [word for word in ("run", "uses", "wait", "wait-all", "cancel", "parallel") if word in own]
        if len(does) != 1:
            said = f"{where} has both {does[0]} and {does[1]}" if does else f"{where} does nothing"
            m.error(node if not does else node.keys[does[1]], "steps", said, "each step runs or uses something, not both")
        id_ = ""
        if "id" in own:
            id_ = c.text(own["id"], f"{where}: id", needed=True)
            if id_:
                self.check_id(own["id"], id_, where)
        for word in ("name", "working-directory"):
            if word in own:
                c.text(own[word], f"{where}: {word}", self.in_steps)
        if "if" in own:
            c.condition(own["if"], f"{where}: if", "step.if" if self.in_steps == "step" else "action.if")
        for word in ("env", "with"):
            if word in own:
                c.pairs(own[word], f"{where}: {word}", self.in_steps)
        if "continue-on-error" in own:
            c.flag(own["continue-on-error"], f"{where}: continue-on-error", self.in_steps)
        if "timeout-minutes" in own:
            c.number(own["timeout-minutes"], f"{where}: timeout-minutes", self.in_steps)
        run = c.text(own["run"], f"{where}: run", self.in_steps) if "run" in own else ""
        if "run" in own and has_expression(own["run"]):
            self.injection(own["run"], f"{where}: run")
        if "shell" in own:
            c.text(own["shell"], f"{where}: shell", self.in_steps, needed=True)
            if "uses" in own:
                m.error(node.keys["shell"], "steps", f"{where} uses an action, so it has no shell")
        if "with" in own and "run" in own:
            m.error(node.keys["with"], "steps", f"{where} runs commands, so it has no with", "with belongs to uses; give variables by env")
        uses = c.text(own["uses"], f"{where}: uses", needed=True) if "uses" in own else ""
        if uses and not (uses.startswith(("./", "docker://")) or _ACTION.fullmatch(uses)):
            m.error(own["uses"], "uses", f"{where}: {uses!r} names no action", "owner/repository[/path]@ref, ./path, or docker://image")
        shown = c.text(own["name"], "") if "name" in own and not has_expression(own["name"]) else ""
        return StepRead(id_, shown, run, uses, place(node).line, _items(own.get("with")))


Nodes = tuple[tuple[str, Node], ...]


def _items(node: Node | None) -> Nodes:
    return tuple(node.value.items()) if node is not None and isinstance(node.value, dict) else ()
