"""Which port of this machine was leased to which instance, for all environments of its server."""

import fcntl
from collections.abc import Callable

from trunkline.kit import jsonfile
from trunkline.kit.sockets import is_free
from trunkline.model.errors import OutsideError

PORTS = range(20_000, 30_000)


class Ports:
    """The leases, in a file. An instance is known by a path of its own."""

    def __init__(self, file: str) -> None:
        self.file = file

    def all(self) -> dict[str, int]:
        """Return all leases."""
        found: dict[str, int] | None = jsonfile.read(self.file)
        return found or {}

    def lease(self, instance: str) -> int:
        """Return the instance's port: the one it had, else the first that nobody has or uses. Raises OutsideError where none is free."""
        known = self.all().get(instance)
        if known:
            return known
        taken = set(self.all().values())
        for port in PORTS:
            if port not in taken and is_free(port):
                self._change(lambda ports, port=port: {**ports, instance: port})  # type: ignore[misc]
                return port
        raise OutsideError("no port is free", f"all of {PORTS.start} to {PORTS.stop - 1} are in use")

    def give_back(self, below: str) -> None:
        """Forget the leases of instances below a path."""
        self._change(lambda ports: {instance: port for instance, port in ports.items() if not instance.startswith(below)})

    def _change(self, change: Callable[[dict[str, int]], dict[str, int]]) -> None:
        with open(self.file + ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            jsonfile.write(self.file, change(self.all()))
