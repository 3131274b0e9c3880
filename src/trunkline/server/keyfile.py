"""A secret key of the server (JSON Web Key, RFC 7517) in a file that only its user can read: made when it is first needed, whole or not at all."""

import json
import os
import threading
from collections.abc import Callable
from typing import Any


class KeyFile:
    """One key; its method may be called from any thread. `read` makes a key of the file's content, `make` a new one (joserfc's)."""

    def __init__(self, path: str, read: Callable[[dict[str, Any]], Any], make: Callable[[], Any]) -> None:
        self.path, self.read, self.make = path, read, make
        self.lock = threading.Lock()
        self._key: Any = None

    def key(self) -> Any:
        """Return it; raises OSError and ValueError where the file can't be read."""
        with self.lock:
            if self._key is None and os.path.exists(self.path):
                with open(self.path, encoding="utf-8") as f:
                    self._key = self.read(json.load(f))
            if self._key is None:
                made = self.make()
                draft = self.path + ".draft"
                with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
                    json.dump(made.as_dict(private=True), f)
                    f.flush()
                    os.fsync(f.fileno())
                os.replace(draft, self.path)
                self._key = made
            return self._key
