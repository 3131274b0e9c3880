"""Which executor works a job: the machine itself where it can, a container where one is needed. That is the setting `executor = "auto"`."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

from trunkline.kit.processes import Cancel, Ended
from trunkline.kit.record import replace
from trunkline.model.diagnostics import Place
from trunkline.model.errors import OutsideError
from trunkline.model.pipelines import Image, Job, Service
from trunkline.model.variables import expand
from trunkline.ports.executor import Box, Executor, Layers, Order, Sandbox


class NoContainers:
    """Implements ports.executor.Executor where there are no containers to be had, and says why."""

    name = "none"

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Name the image and each service."""
        found: list[tuple[str, Image | Service]] = [("image", job.image)] if job.image is not None else []
        found += [("service", s) for s in job.services]
        return tuple(
            (item.place, f"{kind} {expand(item.name, variables, keep_unknown=True)} needs a container: {self.reason} ({self.hint})")
            for kind, item in found
        )

    def kind(self, order: Order) -> str:
        """Return its name."""
        return self.name

    def open(self, order: Order) -> AbstractContextManager[Sandbox]:
        """Refuse."""
        raise OutsideError(f"this job needs a container: {self.reason}", self.hint)

    def tidy(self) -> None:
        """Do nothing."""

    def box(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Refuse."""
        raise OutsideError(f"{box.image or box.folder} needs a container: {self.reason}", self.hint)


class Company(Protocol):
    """Services that run beside a job."""

    network: str

    def beside(self) -> dict[str, Any]:
        """Return what runs, by name."""
        ...


@runtime_checkable
class Accompanying(Protocol):
    """An executor that can start the services of a job which another one works."""

    def accompany(self, order: Order) -> AbstractContextManager[Company]:
        """Start them, with their ports on this machine; leaving the context removes them."""
        ...


class Accompanied:
    """Implements ports.executor.Sandbox: the machine's own, with containers beside it."""

    layers: Layers | None = None

    def __init__(self, inner: Sandbox, company: Company) -> None:
        self.inner, self.company = inner, company
        self.project_dir, self.home, self.tmp, self.network = inner.project_dir, inner.home, inner.tmp, company.network

    def beside(self) -> dict[str, Any]:
        """Return the services."""
        return self.company.beside()

    def environment(self) -> dict[str, str]:
        """Return that of the machine."""
        return self.inner.environment()

    def run(
        self,
        script: str,
        env: Mapping[str, str],
        sink: Callable[[bytes], None],
        cancel: Cancel | None = None,
        deadline: float | None = None,
        lingering: bool = False,
    ) -> Ended:
        """Run it on the machine."""
        return self.inner.run(script, env, sink, cancel, deadline, lingering)


class Choice:
    """Implements ports.executor.Executor with two others. `containers` is made when it is first needed: what speaks to an engine is slow to load.

    `has_python` says whether this machine has the interpreter that an image of Python stands for; such jobs run on warm environments. `used` is a file
    that remembers that there were containers: a server that was killed may have left some.
    """

    name = "auto"

    def __init__(self, host: Executor, containers: Callable[[], Executor], has_python: Callable[[str], bool], used: str = "") -> None:
        self.host, self.make, self.has_python, self.used = host, containers, has_python, used
        self.made: Executor | None = None

    @property
    def containers(self) -> Executor:
        """The executor of containers."""
        if self.made is None:
            self.made = self.make()
            if self.used:
                with open(self.used, "w", encoding="utf-8"):
                    pass
        return self.made

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Return nothing where the machine itself can work the job, else what keeps it from a container."""
        if not self.host.objections(job, variables) and (
            job.image is None or self._may_stand(Order("", "", image=job.image, values=variables))
        ):
            return ()
        found = self.containers.objections(job, variables)
        return found if found and self.host.objections(job, variables) else ()  # a missing interpreter is told when the job runs

    def kind(self, order: Order) -> str:
        """Return that of the one that would work it."""
        return self._chosen(order).kind(order)

    def open(self, order: Order) -> AbstractContextManager[Sandbox]:
        """Make the sandbox where the job can be worked."""
        if order.image is None and order.services and order.must_be_up and isinstance(self.containers, Accompanying):
            return self._accompanied(order, self.containers)
        return self._chosen(order).open(order)

    def _chosen(self, order: Order) -> Executor:
        if order.image is None and (not order.services or (order.must_be_up and isinstance(self.containers, Accompanying))):
            return self.host
        place = order.image.place if order.image else order.services[0].place
        job = Job(order.name, "", place, image=order.image, services=order.services)
        if not self.host.objections(job, order.values) and (self._may_stand(order) or self.containers.objections(job, order.values)):
            return self.host
        return self.containers

    def tidy(self) -> None:
        """Tidy both, the containers if there were any."""
        self.host.tidy()
        if self.made is not None or (self.used and os.path.exists(self.used)):
            self.containers.tidy()

    def box(self, box: Box, sink: Callable[[bytes], None], cancel: Cancel | None = None, deadline: float | None = None) -> Ended:
        """Run it in a container."""
        return self.containers.box(box, sink, cancel, deadline)

    @contextmanager
    def _accompanied(self, order: Order, executor: Accompanying) -> Iterator[Sandbox]:
        with executor.accompany(order) as services:
            published = tuple(int(port) for one in services.beside().values() for port in one["ports"].values())
            with self.host.open(replace(order, doors=published)) as sandbox:
                yield Accompanied(sandbox, services)

    def _may_stand(self, order: Order) -> bool:
        """Say whether this machine's interpreter may stand for an image: nothing of the image itself is asked for."""
        image = order.image
        if image is None:
            return True
        if image.user or image.platform or (image.entrypoint is not None and any(image.entrypoint)):
            return False
        return self.has_python(expand(image.name, order.values))
