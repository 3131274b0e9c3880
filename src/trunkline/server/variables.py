"""Variables and secrets of projects, kept sealed."""

import time

from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError
from trunkline.model.runs import Run
from trunkline.model.secrets import ProjectVariable
from trunkline.model.variables import Variable
from trunkline.ports.store import Store
from trunkline.server.sealing import Sealer

MOST = 64 << 10  # bytes of one value


class ProjectVariables:
    """Those of all projects of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self.store, self.sealer = store, sealer
        self.known: dict[str, dict[str, ProjectVariable]] = {}  # by project and name: every job that starts asks
        self.reload()

    def reload(self) -> None:
        """Read which there are: another server may have changed them."""
        known: dict[str, dict[str, ProjectVariable]] = {}
        for one in self.store.read(lambda tx: tx.documents(ProjectVariable)):
            known.setdefault(one.project, {})[one.name] = one
        self.known = known

    def of(self, project: str) -> list[ProjectVariable]:
        """Return a project's, by name."""
        return [one for _, one in sorted(self.known.get(project, {}).items())]

    def set(
        self, project: str, name: str, value: str, by: str, is_secret: bool = False, is_protected: bool = False, is_file: bool = False
    ) -> ProjectVariable:
        """Set one; raises ConfigError."""
        if self.store.read(lambda tx: tx.find_project(project)) is None:
            raise ConfigError(f"there is no project {project}")
        if not name.isidentifier() or not name.isascii():
            raise ConfigError(f"{name!r} can't be the name of a variable", "letters, digits and _, not a digit first")
        if name.upper().startswith("GITHUB_"):
            raise ConfigError(f"{name}: names that begin with GITHUB_ are GitHub's own")
        if len(value.encode()) > MOST:
            raise ConfigError(f"{name}: a value has at most {MOST >> 10} kB")
        new = ProjectVariable(0, project, name, self.sealer.seal(value), is_secret, is_protected, is_file, by, time.time())
        known = self.known.get(project, {}).get(name)
        if known is None:
            after = self.store.write(lambda tx: tx.add_document(new))
        else:
            after = replace(new, id=known.id)
            self.store.write(lambda tx: tx.save_document(after))
        self.known[project] = {**self.known.get(project, {}), name: after}
        return after

    def remove(self, project: str, name: str) -> None:
        """Remove one; raises ConfigError."""
        known = self.known.get(project, {}).get(name)
        if known is None:
            raise ConfigError(f"{project} has no variable {name}", "trunkline variable lists them")
        self.store.write(lambda tx: tx.remove_document(known))
        self.known[project] = {n: v for n, v in self.known[project].items() if n != name}

    def given(self, run: Run, default_branch: str) -> tuple[Variable, ...]:
        """Return what the jobs of a run get."""
        protected = run.event.is_protected(default_branch)
        return tuple(
            Variable(v.name, self.sealer.open(v.sealed), raw=True, masked=v.is_secret, file=v.is_file)
            for v in self.of(run.project)
            if (protected or not v.is_protected) and (run.event.trusted or not v.is_secret)
        )
