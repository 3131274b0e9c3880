"""Build hook: bring htmx and xterm.js out of their carrier packages into the package, so that no third-party file is committed."""

import hashlib
from importlib.metadata import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WANTED = {
    "django-htmx": {"htmx-2.min.js": "htmx.min.js"},
    "webssh": {"xterm.min.js": "xterm.min.js", "xterm-addon-fit.min.js": "xterm-fit.min.js", "xterm.min.css": "xterm.min.css"},
}


class VendorHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        target = Path(self.root, "src/trunkline/server/static/vendor")
        target.mkdir(parents=True, exist_ok=True)
        for carrier, wanted in WANTED.items():
            carried = {f.name: f for f in files(carrier) or []}
            for name, ours in wanted.items():
                if name not in carried:
                    raise FileNotFoundError(
                        f"{carrier} no longer carries {name}; it has {sorted(n for n in carried if n.endswith(('.js', '.css')))}"
                    )
                content = Path(str(carried[name].locate())).read_bytes()
                (target / ours).write_bytes(content)
                (target / (ours + ".sha256")).write_text(hashlib.sha256(content).hexdigest() + "\n")
