"""A secret key of the server (JSON Web Key, RFC 7517) in a file that only its user can read: made when it is first needed, whole or not at all.

Several servers may share the file: the first that makes one makes it for all.
"""

import contextlib
import json
import os
import tempfile
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
            if self._key is None and not os.path.exists(self.path):
                self._make()
            if self._key is None:
                with open(self.path, encoding="utf-8") as f:
                    self._key = self.read(json.load(f))
            return self._key

    def _make(self) -> None:
        handle, draft = tempfile.mkstemp(".draft", os.path.basename(self.path) + ".", os.path.dirname(self.path))
        with open(handle, "w", encoding="utf-8") as f:
            json.dump(self.make().as_dict(private=True), f)
            f.flush()
            os.fsync(f.fileno())
        with contextlib.suppress(FileExistsError):  # another server was quicker
            os.link(draft, self.path)
        os.unlink(draft)


def read_secret(content: dict[str, Any]) -> Any:
    """Return a secret that is no pair of keys, of its JSON Web Key."""
    from joserfc.jwk import OctKey

    return OctKey.import_key(content)


def make_secret() -> Any:
    """Return a new one of 256 bits."""
    from joserfc.jwk import OctKey

    return OctKey.generate_key(256)
