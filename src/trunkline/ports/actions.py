"""NativeAction: an action that Trunkline does itself, at the speed of this machine, where GitHub would fetch and start a program."""

from collections.abc import Callable, Mapping
from typing import Protocol


class Desk(Protocol):
    """What a step that uses a native action may touch. Paths are those that the job itself sees."""

    workspace: str
    temp: str
    github: Mapping[str, object]
    passed: bool  # whether the job stands well, asked in what is done at the end

    def input(self, name: str, default: str = "") -> str:
        """Return an input of the step."""
        ...

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an input that says true or false; raises ConfigError for anything else."""
        ...

    def say(self, text: str) -> None:
        """Write a line into the log."""
        ...

    def notice(self, level: str, text: str) -> None:
        """Leave an annotation (error, warning, notice) on the job."""
        ...

    def run(self, script: str, env: Mapping[str, str] | None = None) -> int:
        """Run a bash script in the workspace; return its exit code."""
        ...

    def output(self, name: str, value: str) -> None:
        """Set an output of the step."""
        ...

    def export(self, name: str, value: str) -> None:
        """Set an environment variable for later steps."""
        ...

    def path(self, folder: str) -> None:
        """Put a folder before the PATH of later steps."""
        ...

    def mask(self, secret: str) -> None:
        """Hide a text in the log from now on."""
        ...

    def at_end(self, what: Callable[[], None]) -> None:
        """Do something after all steps, in reverse order, whatever has become of the job."""
        ...

    # what the runner lends

    def sync(self) -> str:
        """Bring the run's own files into the workspace; return what to say about it."""
        ...

    def restore_cache(self, key: str, fallbacks: tuple[str, ...], paths: tuple[str, ...]) -> str:
        """Bring the newest cache of a key, or whose key begins with a fallback; return its whole key, "" if there is none."""
        ...

    def save_cache(self, key: str, paths: tuple[str, ...]) -> str:
        """Keep files under a key; return what to say about it."""
        ...

    def keep_artifact(self, name: str, patterns: tuple[str, ...], hidden: bool) -> tuple[int, str]:
        """Keep files as a named artifact of the run; return how many, and what was odd."""
        ...

    def artifacts(self) -> Mapping[str, str]:
        """Return the named artifacts of the run, each with the folder that holds it."""
        ...

    def python(self, version: str) -> tuple[str, str]:
        """Choose the interpreter for what follows; return its path and whole version. Raises OutsideError that names those that there are."""
        ...

    def uv(self) -> str | None:
        """Return the path of uv, if this machine has it."""
        ...

    def tool(self, packages: tuple[str, ...]) -> str:
        """Return the folder with the programs of Python packages, installed once and reused; raises OutsideError."""
        ...

    def changed(self) -> tuple[str, ...] | None:
        """Return the files that the event has changed, None where that can't be told."""
        ...


NativeAction = Callable[[Desk], None]
