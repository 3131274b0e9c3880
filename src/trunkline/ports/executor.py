"""Executor -> Sandbox: where a job's commands run. Sync by decision (docs/decisions/0002): one thread works one job."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trunkline.kit.processes import Cancel, Ended
from trunkline.kit.record import field, record
from trunkline.model.diagnostics import Place
from trunkline.model.pipelines import Image, Job, Service


def _silent(text: str) -> None:
    pass


@record
class Order:
    """What a sandbox is made for. `workspace` is the folder of the job's files; folders of `readable` can be read in the sandbox at their own paths,
    those of `writable` written. `values` are what the job's variables resolve to, `shared` those of them that its services may see. `scope`: the
    project, and which of its kinds of refs. `say` tells the job's log. `deploys`: "start" for a job that deploys (what it has
    started in an engine of its own stays, if it passes), "stop" for one that ends what another has deployed.
    `must_be_up`: a service that does not come up fails the job. `doors`: ports of the machine's loopback that it may reach.
    """

    name: str
    workspace: str
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    image: Image | None = None
    services: tuple[Service, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    shared: Mapping[str, str] = field(default_factory=dict, repr=False)
    scope: tuple[str, str] = ("", "")
    deploys: str = ""
    must_be_up: bool = False
    doors: tuple[int, ...] = ()
    say: Callable[[str], None] = _silent
    cancel: Cancel | None = None


@record
class Box:
    """A container that runs to its end: an action that is an image. `image` is a name, or else `folder` and `file` say what it is built of.

    `mounts` are (folder of this machine, folder in the container); `network` that of a sandbox, "" for none.
    """

    image: str
    folder: str = ""
    file: str = ""
    entrypoint: str = ""
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[tuple[str, str], ...] = ()
    working_directory: str = ""
    network: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    say: Callable[[str], None] = _silent


class Layers(Protocol):
    """What jobs install, kept as layers of images: for sandboxes that are made of an image. `builds_images`: an engine runs beside it."""

    builds_images: bool

    def image(self) -> str:
        """Return the identity of the image that the sandbox is made of; fetches it where it is not here."""
        ...

    def borrow(self, key: str, expires: float) -> float | None:
        """Begin on what is kept under a key, unless it is older than `expires` (seconds); return the seconds that it took to build."""
        ...

    def start(self, env: Mapping[str, str]) -> None:
        """Start the container and what runs beside it, unless that was done: the first script would do so otherwise."""
        ...

    def passed(self) -> None:
        """Hear that the job has passed; raises OutsideError where what it has deployed can't stay."""
        ...

    def keep(self, key: str, seconds: float) -> None:
        """Keep what has changed in the sandbox since its beginning, outside of the folders that it shares with the machine."""
        ...


class Sandbox(Protocol):
    """A place made for one job. Paths are those that the job itself sees, and the same outside."""

    project_dir: str
    home: str
    tmp: str
    layers: Layers | None
    network: str  # that of the containers beside it, "" for none

    def beside(self) -> dict[str, Any]:
        """Return what runs beside it, by name: id, network, and under `ports` where each port of it is published (both as texts)."""
        ...

    def environment(self) -> dict[str, str]:
        """Return the environment that programs have there before the job's own variables."""
        ...

    def run(
        self,
        script: str,
        env: Mapping[str, str],
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        lingering: bool = False,
    ) -> Ended:
        """Run a bash script in the project's folder; return when it and everything it started has ended.

        With `lingering` what it left in the background may go on until the sandbox is closed, where the executor can let it.
        """
        ...


class Executor(Protocol):
    """One way to isolate jobs. Safe to use from several threads, each with its own sandbox."""

    name: str

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Return what keeps this executor from running the job, each with its place; nothing means it can."""
        ...

    def kind(self, order: Order) -> str:
        """Return the name of the kind of sandbox that `open` would make: files that jobs leave in one kind may belong to others than in another."""
        ...

    def open(self, order: Order) -> AbstractContextManager[Sandbox]:
        """Make a sandbox. Leaving the context removes all but the workspace, also after a cancel."""
        ...

    def tidy(self) -> None:
        """Remove what killed processes have left, and what has not been used for long. Called now and then."""
        ...

    def box(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Run a container to its end; raises OutsideError where there are none to be had."""
        ...
