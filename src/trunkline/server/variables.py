"""Variables and secrets of projects: kept sealed (JSON Web Encryption, RFC 7516, A256GCM) with a key that lies in the server's folder."""

import json
import os
import threading
import time
from typing import Any

from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError
from trunkline.model.runs import Run
from trunkline.model.secrets import ProjectVariable
from trunkline.model.variables import Variable
from trunkline.ports.store import Store

MOST = 64 << 10  # bytes of one value


class ProjectVariables:
    """Those of all projects of one server. Its methods may be called from any thread."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.path = store, os.path.join(folder, "variables.key")
        self.lock = threading.Lock()
        self._key: Any = None

    def of(self, project: str) -> list[ProjectVariable]:
        """Return a project's, by name."""
        return sorted(self.store.read(lambda tx: tx.documents(ProjectVariable, project)), key=lambda v: v.name)

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
        new = ProjectVariable(0, project, name, self._sealed(value), is_secret, is_protected, is_file, by, time.time())
        known = next((v for v in self.of(project) if v.name == name), None)
        if known is None:
            return self.store.write(lambda tx: tx.add_document(new))
        changed = replace(new, id=known.id)
        self.store.write(lambda tx: tx.save_document(changed))
        return changed

    def remove(self, project: str, name: str) -> None:
        """Remove one; raises ConfigError."""
        known = next((v for v in self.of(project) if v.name == name), None)
        if known is None:
            raise ConfigError(f"{project} has no variable {name}", "trunkline variable lists them")
        self.store.write(lambda tx: tx.remove_document(known))

    def given(self, run: Run, default_branch: str) -> tuple[Variable, ...]:
        """Return what the jobs of a run get."""
        protected = run.event.is_tag or run.event.ref == default_branch
        return tuple(
            Variable(v.name, self._opened(v.sealed), raw=True, masked=v.is_secret, file=v.is_file)
            for v in self.of(run.project)
            if (protected or not v.is_protected) and (run.event.trusted or not v.is_secret)
        )

    # the key

    def _own_key(self) -> Any:
        from joserfc.jwk import OctKey

        with self.lock:
            if self._key is None and os.path.exists(self.path):
                with open(self.path, encoding="utf-8") as f:
                    self._key = OctKey.import_key(json.load(f))
            if self._key is None:
                made = OctKey.generate_key(256)
                draft = self.path + ".draft"
                with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
                    json.dump(made.as_dict(private=True), f)
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(draft, self.path)
                self._key = made
            return self._key

    def _sealed(self, value: str) -> str:
        from joserfc import jwe

        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, value.encode(), self._own_key())

    def _opened(self, sealed: str) -> str:
        from joserfc import jwe
        from joserfc.errors import JoseError

        try:
            found = jwe.decrypt_compact(sealed, self._own_key()).plaintext
        except (JoseError, ValueError) as problem:
            raise ConfigError("a variable can't be opened: the key of this server is another than when it was set", self.path) from problem
        return (found or b"").decode()
