"""ContainerEngine: what runs containers and keeps images, Docker or Podman. Sync by decision (docs/decisions/0002): jobs are worked by threads.

Descriptions of containers, images and networks are those of the Docker Engine API (version 1.41), as JSON.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from trunkline.kit.processes import Cancel, Ended
from trunkline.kit.record import record

Json = Mapping[str, Any]


@record
class Leftovers:
    """What carries a label: identifiers with the labels of each."""

    containers: tuple[tuple[str, Mapping[str, str]], ...] = ()
    networks: tuple[tuple[str, Mapping[str, str]], ...] = ()
    volumes: tuple[tuple[str, Mapping[str, str]], ...] = ()


class ContainerEngine(Protocol):
    """All methods may be called from several threads; they raise OutsideError with what the engine has said."""

    address: str

    def trouble(self) -> str:
        """Return why the engine can't be used, "" if it can. Quick: what was found is believed for some seconds."""
        ...

    def image(self, name: str) -> Json | None:
        """Return the description of an image that is here, or None."""
        ...

    def pull(self, name: str, platform: str = "", login: tuple[str, str] | None = None, say: Callable[[str], None] | None = None) -> None:
        """Fetch an image from its registry; `login` is user and password."""
        ...

    def build(
        self, context: bytes, tags: Sequence[str], sink: Callable[[bytes], None], file: str = "Dockerfile",
        arguments: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None, target: str = "", cancel: Cancel | None = None,
    ) -> None:  # fmt: skip
        """Build an image from a context (a tar archive, gzip allowed)."""
        ...

    def tag(self, image: str, name: str) -> None:
        """Give an image another name."""
        ...

    def remove_image(self, name: str) -> None:
        """Remove an image; one that is not there or in use is fine."""
        ...

    def images(self, label: str) -> tuple[Json, ...]:
        """Return the images with a label."""
        ...

    def create(self, description: Json, name: str = "", platform: str = "") -> str:
        """Make a container, not yet started; return its identifier."""
        ...

    def hold(self, container: str) -> Callable[[], None]:
        """Hold the standard input of a container (to be called before its start), which ends when this process does; return what lets go."""
        ...

    def start(self, container: str) -> None:
        """Start a container."""
        ...

    def container(self, container: str) -> Json:
        """Return the description of a container."""
        ...

    def execute(
        self, container: str, argv: Sequence[str], sink: Callable[[bytes], None], env: Mapping[str, str] | None = None, folder: str = "", user: str = "",
        cancel: Cancel | None = None, deadline: float | None = None, stop: Callable[[bool], None] | None = None,
    ) -> Ended:  # fmt: skip
        """Run a program in a running container; output goes to `sink` in the calling thread.

        When `cancel` is turned or the `deadline` (time.monotonic()) has passed, `stop` is called: once with False, and with True if that did not end it.
        """
        ...

    def work(self, container: str, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Start a container and wait for its end; its output goes to `sink` in the calling thread. It is killed where that is due."""
        ...

    def log(self, container: str, lines: int = 50) -> bytes:
        """Return the last lines that a container has written."""
        ...

    def commit(self, container: str, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        """Make an image of what a container has changed."""
        ...

    def stop(self, container: str) -> None:
        """Ask a container to end, kill it after the time that it was given when it was made, and wait for that; one that is gone is fine."""
        ...

    def remove(self, *containers: str) -> None:
        """Kill and remove containers with their anonymous volumes; those that are gone are fine."""
        ...

    def mtu(self) -> str:
        """Return the packet size that the engine was told to use, "" for none."""
        ...

    def create_network(self, name: str, labels: Mapping[str, str]) -> str:
        """Make a network of its own with the packet size of the engine's default one; return its identifier."""
        ...

    def connect(self, network: str, container: str, aliases: Iterable[str]) -> None:
        """Bring a container into one more network."""
        ...

    def disconnect(self, network: str, container: str) -> None:
        """Take a container out of a network; one that is not in it is fine."""
        ...

    def remove_networks(self, *networks: str) -> None:
        """Remove networks; those that are gone are fine."""
        ...

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume; one that is there stays."""
        ...

    def remove_volumes(self, *volumes: str) -> None:
        """Remove volumes; those that are gone or in use are fine."""
        ...

    def labelled(self, label: str) -> Leftovers:
        """Return what carries a label (NAME or NAME=VALUE)."""
        ...

    def close(self) -> None:
        """Let go of the connections."""
        ...
