"""What a step prints, on its way to the log: commands are carried out, what problem matchers find becomes annotations, the rest passes through."""

import json
import os
import time
from typing import Any

from trunkline.execution.trace import CYAN, RED, RESET, Trace
from trunkline.execution.workflow import matchers
from trunkline.execution.workflow.commands import Command, Commands
from trunkline.kit.record import mutable
from trunkline.model.errors import ConfigError

AMBER = "\x1b[33;1m"
MOST_NOTES = 200  # annotations kept of one job
_SHOWN = {"error": (RED, "Error"), "warning": (AMBER, "Warning"), "notice": (CYAN, "Notice")}


@mutable
class Notes:
    """What a job leaves beside its log: annotations (level, message, file, line, title, step) and the summary, Markdown."""

    annotations: list[dict[str, Any]]
    summary: str = ""

    def add(self, level: str, message: str, step: str = "", **about: str) -> None:
        """Keep one annotation; what is too much is left out."""
        if len(self.annotations) < MOST_NOTES:
            found = {"level": level, "message": message[:4000], "step": step, **{n: v for n, v in about.items() if v}}
            if found not in self.annotations:
                self.annotations.append(found)

    def save(self, path: str) -> None:
        """Write them beside a log, if there are any."""
        if self.annotations or self.summary:
            with open(path + ".notes", "w", encoding="utf-8") as f:
                json.dump({"annotations": self.annotations, "summary": self.summary[: 1 << 20]}, f)


class Speech:
    """The sink of one step. `outputs` and `state` are what old commands set."""

    def __init__(self, trace: Trace, notes: Notes, active: "list[matchers.Matcher]", workspace: str, step: str) -> None:
        self.trace, self.notes, self.active, self.workspace, self.step = trace, notes, active, workspace, step
        self.commands = Commands()
        self.held = b""
        self.in_line = False  # the beginning of this line has been written already
        self.unseen = b""  # of the line that is not complete, for the matchers
        self.outputs: dict[str, str] = {}
        self.state: dict[str, str] = {}
        self.env: dict[str, str] = {}
        self.paths: list[str] = []
        self.allows_old = False  # whether set-env and add-path are carried out (ACTIONS_ALLOW_UNSECURE_COMMANDS)
        self.groups: list[str] = []
        self.count = 0

    def __call__(self, data: bytes) -> None:
        """Take a piece of output."""
        if not self.held and not self.commands.token and not self.active and b"::" not in data and b"##[" not in data:
            tail = data.rpartition(b"\n")[2].lstrip()
            if not tail or not (tail.startswith((b":", b"#")) or b"##" in tail):
                self.trace.write(data)
                self.in_line = not data.endswith(b"\n")
                return
        *lines, tail = (self.held + data).split(b"\n")
        self.held = b""
        for line in lines:
            self._line(line)
        if tail:
            start = tail.lstrip()
            if not self.in_line and (start.startswith((b":", b"#")) or b"##" in tail):
                self.held = tail
            else:
                self.trace.write(tail)
                self.unseen += tail
                self.in_line = True

    def close(self) -> None:
        """Write what was held."""
        if self.held:
            held, self.held = self.held, b""
            self._line(held)
        while self.groups:
            self._end_group()

    def _line(self, line: bytes) -> None:
        whole, self.unseen = self.unseen + line, b""
        was_in_line, self.in_line = self.in_line, False
        if self.active:
            self._match(whole)
        if was_in_line or (b"::" not in line and b"##[" not in line and not self.commands.token):
            self.trace.write(line + b"\n")
            return
        text = line.decode("utf-8", "replace").rstrip("\r")
        was_stopped = bool(self.commands.token)
        command = self.commands.take(text)
        if command is None:
            if not (was_stopped and not self.commands.token):
                self.trace.write(line + b"\n")
            return
        self._do(command)

    def _match(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        for matcher in self.active:
            found = matcher.take(text)
            if found is not None:
                level = found.get("severity", "error").lower()
                self.notes.add(level if level in _SHOWN else "error", found.get("message", ""), self.step, file=self._inside(found.get("file", "")),
                               line=found.get("line", ""), title=found.get("code", ""))  # fmt: skip

    def _inside(self, path: str) -> str:
        return path.removeprefix(self.workspace + "/")

    def _do(self, command: Command) -> None:
        trace = self.trace
        match command.name.lower():
            case "add-mask":
                trace.masker.add(*([command.data] if command.data.strip() else []))
            case "error" | "warning" | "notice" as level:
                colour, word = _SHOWN[level]
                at = self._inside(command.get("file"))
                self.notes.add(level, command.data, self.step, file=at, line=command.get("line"), title=command.get("title"))
                where = f"{at}:{command.get('line')}: " if at and command.get("line") else f"{at}: " if at else ""
                trace.say(f"{colour}{word}: {where}{command.data}{RESET}")
            case "group":
                self.count += 1
                self.groups.append(f"group_{os.getpid()}_{self.count}")
                trace.say(f"section_start:{int(time.time())}:{self.groups[-1]}\r\x1b[0K{command.data}")
            case "endgroup":
                if self.groups:
                    self._end_group()
            case "set-output":
                self.outputs[command.get("name")] = command.data
            case "save-state":
                self.state[command.get("name")] = command.data
            case "set-env" if self.allows_old:
                self.env[command.get("name")] = command.data
            case "add-path" if self.allows_old:
                self.paths.insert(0, command.data.strip())
            case "set-env" | "add-path" as old:
                self.notes.add(
                    "error",
                    f"the command {old} is no longer carried out: write to ${'GITHUB_ENV' if old == 'set-env' else 'GITHUB_PATH'}",
                    self.step,
                )
                trace.say(f"{RED}Error: the command {old} is disabled, as at GitHub; write to the environment file instead{RESET}")
            case "add-matcher":
                self._add_matcher(command.data)
            case "remove-matcher":
                owner = command.get("owner")
                self.active[:] = [m for m in self.active if m.owner != owner]

    def _end_group(self) -> None:
        self.trace.say(f"section_end:{int(time.time())}:{self.groups.pop()}\r\x1b[0K")

    def _add_matcher(self, path: str) -> None:
        try:
            with open(os.path.join(self.workspace, path.strip()), encoding="utf-8") as f:
                added = matchers.read(json.load(f), path)
        except (OSError, ValueError, ConfigError) as problem:
            said = problem.message if isinstance(problem, ConfigError) else str(problem)
            self.trace.say(f"{AMBER}Warning: the problem matcher {path} can't be used: {said}{RESET}")
            return
        owners = {m.owner for m in added}
        self.active[:] = [*(m for m in self.active if m.owner not in owners), *added]
