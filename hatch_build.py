"""Build hook: bring htmx out of its carrier wheel into the package, so that no third-party file is committed."""

import hashlib
from importlib.metadata import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WANTED = {"htmx-2.min.js": "htmx.min.js"}


class VendorHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = Path(self.root, "src/trunkline/server/static/vendor")
        target.mkdir(parents=True, exist_ok=True)
        carried = {f.name: f for f in files("django-htmx") or []}
        for name, ours in WANTED.items():
            if name not in carried:
                raise FileNotFoundError(f"django-htmx no longer carries {name}; it has {sorted(n for n in carried if 'htmx' in n)}")
            content = Path(str(carried[name].locate())).read_bytes()
            (target / ours).write_bytes(content)
            (target / (ours + ".sha256")).write_text(hashlib.sha256(content).hexdigest() + "\n")
