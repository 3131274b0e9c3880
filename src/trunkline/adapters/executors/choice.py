"""Which executor works a job: the machine itself where it can, a container where one is needed. That is the setting `executor = "auto"`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from trunkline.model.diagnostics import Place
from trunkline.model.errors import OutsideError
from trunkline.model.pipelines import Image, Job, Service
from trunkline.model.variables import expand
from trunkline.ports.executor import Executor, Order, Sandbox


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

    def open(self, order: Order) -> AbstractContextManager[Sandbox]:
        """Refuse."""
        raise OutsideError(f"this job needs a container: {self.reason}", self.hint)


class Choice:
    """Implements ports.executor.Executor with two others. `containers` is made when it is first needed: what speaks to an engine is slow to load.

    `has_python` says whether this machine has the interpreter that an image of Python stands for; such jobs run on warm environments.
    """

    name = "auto"

    def __init__(self, host: Executor, containers: Callable[[], Executor], has_python: Callable[[str], bool]) -> None:
        self.host, self.make, self.has_python = host, containers, has_python
        self.made: Executor | None = None

    @property
    def containers(self) -> Executor:
        """The executor of containers."""
        if self.made is None:
            self.made = self.make()
        return self.made

    def objections(self, job: Job, variables: Mapping[str, str]) -> tuple[tuple[Place, str], ...]:
        """Return nothing where the machine itself can work the job, else what keeps it from a container."""
        if not self.host.objections(job, variables) and (
            job.image is None or self._may_stand(Order("", "", image=job.image, values=variables))
        ):
            return ()
        found = self.containers.objections(job, variables)
        return found if found and self.host.objections(job, variables) else ()  # a missing interpreter is told when the job runs

    def open(self, order: Order) -> AbstractContextManager[Sandbox]:
        """Make the sandbox where the job can be worked."""
        if order.image is None and not order.services:
            return self.host.open(order)
        place = order.image.place if order.image else order.services[0].place
        job = Job(order.name, "", place, image=order.image, services=order.services)
        if not self.host.objections(job, order.values) and (self._may_stand(order) or self.containers.objections(job, order.values)):
            return self.host.open(order)
        return self.containers.open(order)

    def _may_stand(self, order: Order) -> bool:
        """Say whether this machine's interpreter may stand for an image: nothing of the image itself is asked for."""
        image = order.image
        if image is None:
            return True
        if image.user or image.platform or (image.entrypoint is not None and any(image.entrypoint)):
            return False
        return self.has_python(expand(image.name, order.values))
