"""Which job of a resource group may start (GitLab's documentation of resource groups and their process modes)."""

from collections.abc import Iterable

from trunkline.kit.record import replace
from trunkline.kit.words import did_you_mean
from trunkline.model.errors import ConfigError
from trunkline.model.groups import MODES, ResourceGroup
from trunkline.model.runs import JobRun, Run, Status
from trunkline.ports.store import Store


class ResourceGroups:
    """The groups of all projects. Its methods may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reload()

    def reload(self) -> None:
        """Read which there are: another server may have changed them."""
        self.known = {(g.project, g.name): g for g in self.store.read(lambda tx: tx.documents(ResourceGroup))}

    def of(self, project: str) -> list[ResourceGroup]:
        """Return those of a project whose mode somebody has set."""
        return [g for g in self.known.values() if g.project == project]

    def set_mode(self, project: str, name: str, mode: str) -> ResourceGroup:
        """Choose how a group chooses; raises ConfigError."""
        if mode not in MODES:
            raise ConfigError(f"a resource group can't be {mode!r}", did_you_mean(mode, MODES) or ", ".join(MODES))
        before = self.known.get((project, name))
        if before is None:
            new = ResourceGroup(0, project, name, mode)
            after = self.store.write(lambda tx: tx.add_document(new))
        else:
            after = replace(before, mode=mode)
            self.store.write(lambda tx: tx.save_document(after))
        self.known[project, name] = after
        return after

    def may_start(self, run: Run, job: JobRun, active: Iterable[Run]) -> bool:
        """Say whether a queued job may start: nobody of its group runs, and it is this one's turn."""
        name = job.job.resource_group
        if not name:
            return True
        others = [(r.id, j.status) for r in active if r.project == run.project for j in r.jobs if j.job.resource_group == name]
        if any(status is Status.RUNNING for _, status in others):
            return False
        known = self.known.get((run.project, name))
        mode = known.mode if known is not None else "unordered"
        if mode == "unordered":
            return True
        waiting = (Status.QUEUED,) if mode == "newest_ready_first" else (Status.QUEUED, Status.CREATED)
        turns = [id_ for id_, status in others if status in waiting]
        return run.id == (min(turns) if mode == "oldest_first" else max(turns))
