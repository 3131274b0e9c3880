"""Works the steps of one job: conditions, shells, actions, environment files, what is done at the end. Sources: GitHub's documentation of workflow
syntax, of contexts, of environment files and of the metadata of actions.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.execution import artifacts
from trunkline.execution.trace import BOLD, CYAN, GREEN, RED, RESET
from trunkline.execution.workflow import files
from trunkline.execution.workflow.desk import Desk, add_to_store
from trunkline.execution.workflow.frames import Evaluator, Frame, evaluate_with
from trunkline.execution.workflow.pythons import Pythons
from trunkline.execution.workflow.speech import AMBER, Notes, Speech
from trunkline.kit import identity, trees
from trunkline.kit.record import mutable, record
from trunkline.kit.words import duration
from trunkline.model import locks
from trunkline.model.actions import ActionMetadata
from trunkline.model.errors import TrunklineError
from trunkline.model.expressions import ExpressionMistake
from trunkline.model.runs import JobResult, Reason, Status
from trunkline.model.workflows import Step

if TYPE_CHECKING:
    from trunkline.execution.work import Worker
    from trunkline.ports.executor import Sandbox

CLEANUP = 300.0  # seconds that steps with always() have after a cancel
MAX_DEPTH = 10  # composite actions that use one another
_SHELLS = {
    "": "bash -e {0}",
    "bash": "bash --noprofile --norc -eo pipefail {0}",
    "sh": "sh -e {0}",
    "python": "python {0}",
    "pwsh": "pwsh -command \". '{0}'\"",
    "powershell": "powershell -command \". '{0}'\"",
}
_OWN = {"": "set -e", "bash": "set -eo pipefail"}
_FILES = ("output", "env", "path", "state", "step_summary")


@record
class Done:
    """How a step ended. `problem` is one sentence."""

    problem: str = ""
    timed_out: bool = False


@mutable
class AtEnd:
    """Something that is done after all steps."""

    title: str
    what: Callable[[], int]
    condition: str
    frame: Frame
    env: dict[str, str]


class StepFailed(Exception):
    """A step can't go on; the message says why."""


class Steps:
    """One job's steps."""

    def __init__(self, worker: Worker, sandbox: Sandbox) -> None:
        self.worker, self.sandbox, self.trace = worker, sandbox, worker.trace
        self.job, self.task, self.shop = worker.job, worker.task, worker.shop
        assert self.job.workflow is not None
        self.w = self.job.workflow
        self.notes = Notes([])
        self.matchers: list[Any] = []
        self.env: dict[str, str] = {}  # what the workflow, the job and GITHUB_ENV set
        self.paths: list[str] = []
        self.at_end: list[AtEnd] = []
        self.count = 0
        self.timed_out = False
        self.problem = ""
        self.lingers = len(self.w.steps) > 1 or any(step.uses for step in self.w.steps)  # else nothing comes after what it leaves behind
        self.deadline = time.monotonic() + (self.job.timeout or self.task.timeout)
        self.folder = os.path.join(sandbox.tmp, "_runner")
        self.temp = os.path.join(sandbox.tmp, "_temp")
        for made in (self.folder, self.temp, sandbox.project_dir):
            os.makedirs(made, exist_ok=True)
        self.pythons = Pythons(self)
        self.base = self._base()
        self.frame = Frame(self._contexts(), sandbox.project_dir)

    # what steps see

    def _base(self) -> dict[str, str]:
        """Return the environment that every step has."""
        own = ("CI", "TRUNKLINE", "TRUNKLINE_LOCAL")
        env = {n: v for n, v in self.worker.environment(self.sandbox).items() if not n.startswith(("CI_", "GITLAB_")) or n in own}
        about = (self.task.contexts or {}).get("trunkline")
        proofs = about.get("proofs") if isinstance(about, dict) else None
        own_of_image = dict(self.job.image.env) if self.job.image is not None else {}
        return {**env, **(proofs or {}), "CI": "true", "GITHUB_ACTIONS": "true", "HOME": self.sandbox.home, **own_of_image}

    def _contexts(self) -> dict[str, Any]:
        given: dict[str, Any] = dict(self.task.contexts or {})
        event = os.path.join(self.folder, "event.json")
        workspace = self.sandbox.project_dir
        github = {**given.get("github", {}), "workspace": workspace, "event_path": event, "action": "", "action_path": "", "job": self.w.id}
        trees.write_inside(self.sandbox.tmp, "_runner/event.json", json.dumps(github.get("event", {})))
        machine = os.uname()
        runner = {
            "os": "Linux",
            "arch": {"x86_64": "X64", "aarch64": "ARM64"}.get(machine.machine, machine.machine.upper()),
            "name": self.task.label,
            "temp": self.temp,
            "tool_cache": os.path.join(self.sandbox.tmp, "_tools"),
            "environment": "self-hosted",
            "workspace": os.path.dirname(workspace),
        }
        secrets = given.get("secrets", {})
        self.trace.masker.add(*(text for text in secrets.values() if text))
        token = secrets.get("GITHUB_TOKEN") or github.get("token") or ""
        self.trace.masker.add(*([token] if token else []))
        secrets = {**secrets, "GITHUB_TOKEN": token} if token else secrets
        return {**given, "github": {**github, "token": token}, "secrets": secrets, "runner": runner, "job": {"status": "success"}}

    @property
    def status(self) -> str:
        """Return how the job stands, as success() and its like see it."""
        return "cancelled" if self.worker.cancel.turned else "failure" if self.frame.failed else "success"

    def _status(self, frame: Frame) -> str:
        return "cancelled" if self.worker.cancel.turned else "failure" if frame.failed else "success"

    def environment(self, frame: Frame, env: Mapping[str, str], number: str) -> dict[str, str]:
        """Return the whole environment of a process of a step."""
        github = frame.contexts["github"]
        told = {
            f"GITHUB_{name.upper()}": _plain(value) for name, value in github.items() if name not in ("event", "token", "repositoryUrl")
        }
        runner = {f"RUNNER_{name.upper()}": _plain(value) for name, value in frame.contexts["runner"].items()}
        channels = {f"GITHUB_{name.upper()}": os.path.join(self.folder, number, name) for name in _FILES}
        whole = {**self.base, **told, **runner, **channels, **self.env, **frame.env, **env}
        before = whole.get("PATH") or self.base.get("PATH", "/usr/bin:/bin")
        whole["PATH"] = os.pathsep.join([*self.paths, before])
        return {n: v for n, v in whole.items() if "\0" not in v and n and "=" not in n}

    # the story

    def story(self) -> JobResult:
        """Run all steps, then what is to be done at the end."""
        try:
            self._job_env()
            if self.sandbox.layers is not None:
                with self.trace.section("prepare_container", "Starting the containers"):
                    self.sandbox.layers.start(self.base)
            if self.job.services:
                self.frame.contexts = {**self.frame.contexts, "job": {**self.frame.contexts["job"], "services": self.sandbox.beside()}}
            self.steps(self.w.steps, self.frame)
        except ExpressionMistake as mistake:
            self._fail(self.frame, f"the job's own settings can't be read: {mistake}")
        self._finish()
        return self._result()

    def _job_env(self) -> None:
        given = (self.task.contexts or {}).get("trunkline")
        handed = given.get("env") if isinstance(given, dict) else None
        self.env |= handed or {}  # what somebody said who started the run
        for level in self.w.env:
            self.env |= Evaluator(self.frame, self.env, "success").pairs(level)

    def _fail(self, frame: Frame, problem: str) -> None:
        self.trace.say(f"{RED}Error: {problem}{RESET}")
        frame.failed = True
        self.problem = self.problem or problem

    def steps(self, steps: tuple[Step, ...], frame: Frame) -> None:
        """Run a list of steps, one after the other."""
        for at, step in enumerate(steps):
            if self.worker.cancel.hard:
                return
            self._step(step, frame, steps[at:])

    def _step(self, step: Step, frame: Frame, following: tuple[Step, ...]) -> None:
        status = self._status(frame)
        env = {**self.env, **frame.env}
        self.count += 1
        number = str(self.count)
        about = {"outcome": "skipped", "conclusion": "skipped", "outputs": {}}
        frame.steps[step.id or f"__{number}"] = about
        frame.begin(step)
        title = step.name or (f"Run {step.uses}" if step.uses else f"Run {step.run.strip().split(chr(10))[0][:100]}")
        try:
            env |= Evaluator(frame, env, status).pairs(step.env)
            evaluate = Evaluator(frame, env, status)
            if not evaluate.holds(step.condition):
                if step.condition and status == "success":
                    self.trace.say(f"{CYAN}{_shown(title, evaluate)}{RESET}: skipped, {step.condition.strip()} does not hold")
                return
            title = _shown(title, evaluate)
        except ExpressionMistake as mistake:
            about |= {"outcome": "failure", "conclusion": "failure"}
            self._fail(frame, f"{step.place.file}:{step.place.line}: {title}: {mistake}")
            return
        with self.trace.section(f"step_{number}", title):
            done = self._attempt(step, frame, env, evaluate, number, title, following, about)
        about["outcome"] = "failure" if done.problem else "success"
        allowed = False
        if done.problem:
            try:
                allowed = evaluate.is_true(step.continue_on_error)
            except ExpressionMistake:
                allowed = False
            said = f"{title}: {done.problem}"
            if self.worker.cancel.turned:
                about["outcome"] = "cancelled"
            elif allowed:
                self.trace.say(f"{AMBER}Warning: {said}; the job goes on (continue-on-error){RESET}")
                self.notes.add("warning", said, title)
            else:
                self.trace.say(f"{RED}Error: {said}{RESET}")
                self.problem = self.problem or said
                frame.failed = True
        about["conclusion"] = "success" if allowed else about["outcome"]

    def _attempt(
        self,
        step: Step,
        frame: Frame,
        env: dict[str, str],
        evaluate: Evaluator,
        number: str,
        title: str,
        following: tuple[Step, ...],
        about: dict[str, Any],
    ) -> Done:
        """Do what a step says; whatever goes wrong is a sentence."""
        try:
            if step.unsupported:
                raise StepFailed(step.unsupported)
            deadline = self.deadline
            if step.timeout_minutes:
                deadline = min(deadline, time.monotonic() + 60 * float(evaluate.text(step.timeout_minutes)))
            if self.worker.cancel.turned:
                deadline = time.monotonic() + CLEANUP
            self._channels(number)
            if step.uses:
                return self._uses(step, frame, env, evaluate, number, title, about, deadline)
            return self._runs(step, frame, env, evaluate, number, title, following, about, deadline)
        except (StepFailed, ExpressionMistake, ValueError) as problem:
            return Done(str(problem))
        except TrunklineError as problem:
            return Done(problem.message + (f" ({problem.hint})" if problem.hint else ""))

    def _channels(self, number: str) -> None:
        os.makedirs(os.path.join(self.folder, number), exist_ok=True)
        for name in _FILES:
            trees.write_inside(self.sandbox.tmp, f"_runner/{number}/{name}", "")

    def execute(self, command: str, env: Mapping[str, str], title: str, deadline: float, said: dict[str, Any]) -> tuple[int, bool]:
        """Run a bash script and listen to what it says; what it says to its runner by commands goes into `said`."""
        sink = self._speech(title, env)
        cancel = None if self.worker.cancel.turned else self.worker.cancel
        ended = self.sandbox.run(command, env, sink, cancel, deadline, lingering=self.lingers)
        self._heard(sink, said)
        if ended.timed_out and time.monotonic() >= self.deadline:
            self.timed_out = True
        return ended.exit_code, ended.timed_out

    def _speech(self, title: str, env: Mapping[str, str]) -> Speech:
        sink = Speech(self.trace, self.notes, self.matchers, self.sandbox.project_dir, title)
        sink.allows_old = env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS", "").lower() == "true"
        return sink

    def _heard(self, sink: Speech, said: dict[str, Any]) -> None:
        sink.close()
        said.setdefault("outputs", {}).update(sink.outputs)
        said.setdefault("state", {}).update(sink.state)
        self.env |= sink.env
        self.paths = [*sink.paths, *self.paths]

    def _take_channels(self, number: str, about: dict[str, Any], state: dict[str, str]) -> None:
        """Read what a step wrote into its environment files."""
        told: dict[str, str] = {}
        for name in _FILES:
            try:
                own = trees.open_inside(self.sandbox.tmp, f"_runner/{number}/{name}", os.O_RDONLY)
                with open(own, encoding="utf-8", errors="replace") as f:
                    told[name] = f.read()
            except OSError:
                told[name] = ""
        if told["output"]:
            about["outputs"] = {**about["outputs"], **dict(files.read_pairs(told["output"], "GITHUB_OUTPUT"))}
        if told["env"]:
            pairs, refused = files.read_environment(told["env"])
            self.env |= dict(pairs)
            for name in refused:
                self.trace.say(f"{AMBER}Warning: GITHUB_ENV must not set {name}{RESET}")
        if told["path"]:
            self.paths = [*files.read_paths(told["path"]), *self.paths]
        if told["state"]:
            state |= dict(files.read_pairs(told["state"], "GITHUB_STATE"))
        if told["step_summary"]:
            self.notes.summary += told["step_summary"].rstrip("\n") + "\n\n"

    # steps that run commands

    def _runs(
        self, step: Step, frame: Frame, env: dict[str, str], evaluate: Evaluator, number: str, title: str, following: tuple[Step, ...],
        about: dict[str, Any], deadline: float,
    ) -> Done:  # fmt: skip
        text = evaluate.text(step.run)
        shell = evaluate.text(step.shell or ("" if frame.depth else self.w.shell))
        place = evaluate.text(step.working_directory or ("" if frame.depth else self.w.working_directory))
        if shell in ("", "bash", "sh") and not place and frame.depth == 0:
            rest = self.pythons.before(text, following, evaluate, env, title, deadline)
            if rest is not None and rest.exit_code:
                return Done(f"exit code {rest.exit_code}")
            if rest is not None:
                text = rest.script
                if not text.strip():
                    return Done()
        elif frame.depth == 0 or shell == "python":
            self.pythons.before("", (), evaluate, env, title, deadline, needed=shell == "python")
        for line in text.rstrip("\n").split("\n")[:60]:
            self.trace.say(f"{GREEN}{line}{RESET}")
        folder = os.path.join(self.sandbox.project_dir, place)
        if not os.path.isdir(folder):
            raise StepFailed(f"the working directory {place!r} does not exist; is a checkout step before this one?")
        said: dict[str, Any] = {}
        inside = f"cd {_quoted(folder)} || exit 1; " if place else ""
        if shell in _OWN:  # the script runs in the shell that the sandbox starts anyway, and its lines keep their numbers
            command = f"{inside}{_OWN[shell]}; {text}\n"
        else:
            command = f"{inside}exec {self._command(shell, text, number)}\n"
        code, timed_out = self.execute(command, self.environment(frame, env, number), title, deadline, said)
        about["outputs"] = {**about["outputs"], **said["outputs"]}
        self._take_channels(number, about, said["state"])
        if timed_out:
            return Done(
                f"it ran longer than {step.timeout_minutes or duration(self.job.timeout or self.task.timeout)}"
                + (" minutes" if step.timeout_minutes else ""),
                True,
            )
        return Done(f"exit code {code}") if code else Done()

    def _command(self, shell: str, text: str, number: str) -> str:
        """Write the script of a step; return the command that runs it."""
        template = _SHELLS.get(shell, shell)
        if "{0}" not in template:
            raise StepFailed(f"there is no shell {shell!r}; {', '.join(s for s in _SHELLS if s)}, or a command with {{0}}")
        program = template.split()[0]
        found = shutil.which(program, path=os.pathsep.join([*self.paths, self.base.get("PATH", "")]))
        if found is None and self.sandbox.layers is None:
            raise StepFailed(f"the shell {program} is not on this machine")
        ending = {"python": ".py", "pwsh": ".ps1", "powershell": ".ps1"}.get(shell, ".sh")
        if ending == ".ps1":
            text = (
                f"$ErrorActionPreference = 'stop'\n{text}\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) {{ exit $LASTEXITCODE }}"
            )
        path = os.path.join(self.folder, f"{number}{ending}")
        trees.write_inside(self.sandbox.tmp, f"_runner/{number}{ending}", text if text.endswith("\n") else text + "\n")
        return template.replace("{0}", path)

    # steps that use actions

    def _uses(
        self, step: Step, frame: Frame, env: dict[str, str], evaluate: Evaluator, number: str, title: str, about: dict[str, Any], deadline: float
    ) -> Done:  # fmt: skip
        given = evaluate.pairs(step.inputs)
        if step.uses.startswith("docker://"):
            image = ActionMetadata(step.uses, "docker", image=step.uses)
            return self._docker(image, "", step, frame, env, given, evaluate, number, title, about, deadline)
        if not step.uses.startswith(("./", "../")):
            name, _, ref = step.uses.partition("@")
            native = self.shop.action(name.lower())
            if native is not None:
                return self._native(native, step, frame, env, given, number, title, about, deadline)
            folder = self._fetched(name, ref)
        else:
            folder = os.path.normpath(os.path.join(self.sandbox.project_dir, step.uses))
        action = self._metadata(folder, step.uses)
        inputs = self._inputs(action, given, evaluate)
        if action.using == "composite":
            return self._composite(action, folder, step, frame, env, inputs, about)
        if action.using == "node":
            return self._javascript(action, folder, step, frame, env, inputs, number, title, about, deadline)
        return self._docker(action, folder, step, frame, env, inputs, evaluate, number, title, about, deadline)

    def _docker(
        self, action: ActionMetadata, folder: str, step: Step, frame: Frame, env: dict[str, str], inputs: dict[str, str], evaluate: Evaluator, number: str,
        title: str, about: dict[str, Any], deadline: float,
    ) -> Done:  # fmt: skip
        from trunkline.execution.workflow.containers import run_action

        about_it = evaluate_with(evaluate, "inputs", inputs)
        sink = self._speech(title, env)
        whole = {**self.environment(frame, env, number), **_of_action(step)}
        code, timed_out = run_action(self, action, folder, step.uses, about_it, whole, inputs, sink, deadline)
        said: dict[str, Any] = {}
        self._heard(sink, said)
        about["outputs"] = {**about["outputs"], **said["outputs"]}
        self._take_channels(number, about, said["state"])
        return Done("it ran too long", True) if timed_out else Done(f"exit code {code}") if code else Done()

    def _fetched(self, name: str, ref: str) -> str:
        """Return the folder of a remote action, as the job sees it."""
        owner, repository, *below = name.split("/")
        source = self.shop.fetch_action(f"{owner}/{repository}", ref, self._pinned().get(f"{name}@{ref}", ""))
        target = os.path.join(self.sandbox.tmp, "_actions", owner, repository, ref.replace("/", "_"))
        if not os.path.isdir(target):
            shutil.copytree(source, target, symlinks=True)
        return os.path.join(target, *below)

    def _pinned(self) -> dict[str, str]:
        """Return what the run's commit says its actions were when they were pinned."""
        try:
            with open(os.path.join(self.task.sources.root, locks.FILE), encoding="utf-8") as f:
                return locks.read(f.read())
        except OSError:
            return {}

    def _metadata(self, folder: str, uses: str) -> ActionMetadata:
        for name in ("action.yml", "action.yaml"):
            try:
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as f:
                    return self.shop.read_action(f"{uses}/{name}", f.read())
            except (FileNotFoundError, NotADirectoryError):
                continue
        if os.path.exists(os.path.join(folder, "Dockerfile")):
            return ActionMetadata(uses, "docker", image="Dockerfile")
        hint = "; a checkout step must come before it" if uses.startswith("./") and not os.listdir(self.sandbox.project_dir) else ""
        raise StepFailed(f"there is no action at {uses}: no action.yml{hint}")

    def _inputs(self, action: ActionMetadata, given: dict[str, str], evaluate: Evaluator) -> dict[str, str]:
        """Return what an action is given, with the defaults of what it is not."""
        folded = {name.lower(): value for name, value in given.items()}
        known = {one.name.lower() for one in action.inputs}
        inputs = {one.name: folded.get(one.name.lower(), evaluate.text(one.default)) for one in action.inputs}
        extra = [name for name in given if name.lower() not in known]
        if extra and action.using != "docker":
            self.trace.say(
                f"{AMBER}Warning: unexpected input {', '.join(extra)}; the action takes {', '.join(sorted(i.name for i in action.inputs)) or 'none'}{RESET}"
            )
        return {**inputs, **{name: given[name] for name in extra}}

    def _composite(
        self,
        action: ActionMetadata,
        folder: str,
        step: Step,
        frame: Frame,
        env: dict[str, str],
        inputs: dict[str, str],
        about: dict[str, Any],
    ) -> Done:
        if frame.depth >= MAX_DEPTH:
            raise StepFailed(f"actions use one another more than {MAX_DEPTH} deep")
        github = {**frame.contexts["github"], "action_path": folder, "action_repository": "", "action_ref": ""}
        outer = {n: v for n, v in env.items() if self.env.get(n) != v}
        contexts = {**frame.contexts, "github": github, "inputs": dict(inputs)}
        contexts.pop("secrets", None)
        inner = Frame(contexts, frame.workspace, outer, {}, False, folder, frame.depth + 1)
        before = self.problem
        self.steps(action.steps, inner)
        evaluate = Evaluator(inner, {**self.env, **outer}, self._status(inner))
        about["outputs"] = {**about["outputs"], **{name: evaluate.text(template) for name, template in action.outputs}}
        if inner.failed:
            said, self.problem = self.problem, before
            return Done(said or "a step of it failed")
        return Done()

    def _javascript(
        self, action: ActionMetadata, folder: str, step: Step, frame: Frame, env: dict[str, str], inputs: dict[str, str], number: str, title: str,
        about: dict[str, Any], deadline: float,
    ) -> Done:  # fmt: skip
        node: str | None
        if self.sandbox.layers is not None:
            has_node = self.sandbox.run("command -v node >/dev/null\n", self.environment(frame, env, number), lambda _: None)
            if has_node.exit_code:
                raise StepFailed("it is a JavaScript action, and the image of the container has no node")
            node = "node"
        else:
            node = shutil.which("node", path=os.pathsep.join([*self.paths, self.base.get("PATH", "")])) or shutil.which("node")
        if node is None:
            raise StepFailed("it is a JavaScript action, and there is no node on this machine (install Node.js 20 or later)")
        state: dict[str, str] = {}
        handed = {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}

        def program(path: str, channel: str) -> tuple[int, bool]:
            saved = {f"STATE_{name}": value for name, value in state.items()}
            github = {"GITHUB_ACTION_PATH": folder, "GITHUB_TOKEN": "", **_of_action(step)}
            whole = {**self.environment(frame, env, channel), **github, **handed, **saved}
            if not (self.env | env).get("GITHUB_TOKEN"):
                whole.pop("GITHUB_TOKEN", None)
            said: dict[str, Any] = {"state": state}
            command = f"exec {_quoted(node)} {_quoted(os.path.join(folder, path))}\n"
            code, timed_out = self.execute(
                command, whole, title, deadline if not self.worker.cancel.turned else time.monotonic() + CLEANUP, said
            )
            about["outputs"] = {**about["outputs"], **said["outputs"]}
            self._take_channels(channel, about, state)
            return code, timed_out

        if action.pre:
            code, _ = program(action.pre, number)
            if code:
                return Done(f"what it does before failed with exit code {code}")
            self._channels(number)
        if action.post:

            def after() -> int:
                self._channels(f"{number}-post")
                return program(action.post, f"{number}-post")[0]

            self.at_end.append(AtEnd(f"Post {title}", after, action.post_if or "always()", frame, env))
        code, timed_out = program(action.main, number)
        return Done("it ran too long", True) if timed_out else Done(f"exit code {code}") if code else Done()

    def _native(
        self, native: Any, step: Step, frame: Frame, env: dict[str, str], given: dict[str, str], number: str, title: str, about: dict[str, Any],
        deadline: float,
    ) -> Done:  # fmt: skip
        desk = Desk(self, step, frame, env, {name.lower(): value for name, value in given.items()}, number, title, about, deadline)
        native(desk)
        self._take_channels(number, about, {})
        return Done()

    # the end

    def _finish(self) -> None:
        """Do what is to be done at the end, the last first; a failure there is said."""
        while self.at_end and not self.worker.cancel.hard:
            one = self.at_end.pop()
            try:
                if not Evaluator(one.frame, {**self.env, **one.env}, self.status).holds(one.condition):
                    continue
            except ExpressionMistake as mistake:
                self._fail(self.frame, f"{one.title}: {mistake}")
                continue
            self.count += 1
            with self.trace.section(f"step_{self.count}", one.title):
                try:
                    code = one.what()
                except (TrunklineError, OSError, StepFailed) as problem:
                    self._fail(self.frame, f"{one.title}: {problem.message if isinstance(problem, TrunklineError) else problem}")
                    continue
            if code:
                self._fail(self.frame, f"{one.title}: exit code {code}")

    def _outputs(self) -> tuple[tuple[str, str], ...]:
        """Return the job's outputs; one that holds a secret is dropped."""
        found = []
        evaluate = Evaluator(self.frame, self.env, self.status)
        for name, template in self.w.outputs:
            try:
                text = evaluate.text(template)
            except ExpressionMistake as mistake:
                self.trace.say(f"{AMBER}Warning: the output {name} can't be told: {mistake}{RESET}")
                continue
            if any(secret.decode("utf-8", "replace") in text for secret in self.trace.masker.secrets):
                self.trace.say(f"{AMBER}Warning: the output {name} is dropped: it holds a secret{RESET}")
                self.notes.add("warning", f"the output {name} is dropped: it holds a secret")
                continue
            found.append((name, text))
        return tuple(found)

    def _result(self) -> JobResult:
        name, trace = self.job.name, self.trace
        for report in self.job.artifacts.reports if self.job.artifacts is not None else ():
            found = artifacts.collect(self.sandbox.project_dir, report.paths, (), {})
            with identity.files_of_the_process():
                add_to_store(self.sandbox.project_dir, found.paths, self.task.store)
        outputs = self._outputs()
        if self.problem and not self.worker.cancel.turned:
            self.notes.add("error", self.problem)
        self.notes.summary = trace.masker.hidden(self.notes.summary)
        self.notes.annotations = [{n: trace.masker.hidden(str(v)) for n, v in note.items()} for note in self.notes.annotations]
        with identity.files_of_the_process():
            self.notes.save(self.task.trace_path)
        if self.worker.cancel.turned:
            trace.say(f"{RED}Canceled{RESET}")
            return JobResult(name, Status.CANCELED, Reason.CANCELED, "canceled")
        if self.timed_out:
            limit = duration(self.job.timeout or self.task.timeout)
            trace.say(f"{RED}ERROR: the job ran longer than {limit}{RESET}")
            return JobResult(name, Status.FAILED, Reason.TIMEOUT, f"it ran longer than {limit}", dotenv=outputs)
        if self.frame.failed:
            trace.say(f"{RED}ERROR: the job failed: {self.problem}{RESET}")
            return JobResult(name, Status.FAILED, Reason.SCRIPT, trace.masker.hidden(self.problem), 1, dotenv=outputs)
        trace.say(f"{BOLD}{GREEN}Job passed{RESET}")
        return JobResult(name, Status.PASSED, exit_code=0, dotenv=outputs, environment_url=self._url())

    def _url(self) -> str:
        """Return the address of the environment that the job names, which may be an output of a step."""
        try:
            return Evaluator(self.frame, self.env, "success").text(self.w.url)
        except ExpressionMistake as mistake:
            self.trace.say(f"{AMBER}Warning: environment.url can't be told: {mistake}{RESET}")
            return ""


def _shown(title: str, evaluate: Evaluator) -> str:
    try:
        return evaluate.text(title).replace("\n", " ")
    except ExpressionMistake:
        return title


def _of_action(step: Step) -> dict[str, str]:
    """Return what a remote action knows of itself."""
    if step.uses.startswith("."):
        return {}
    name, _, ref = step.uses.partition("@")
    return {"GITHUB_ACTION_REPOSITORY": "/".join(name.split("/")[:2]), "GITHUB_ACTION_REF": ref}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _plain(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else "" if value is None else str(value)
