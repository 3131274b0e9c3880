"""What must not lie readable in the database: sealed (JSON Web Encryption, RFC 7516, A256GCM) with a key that lies in the server's folder."""

import json
import os
import threading
from typing import Any

from trunkline.model.errors import ConfigError


class Sealer:
    """Seals texts; its methods may be called from any thread."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "variables.key")
        self.lock = threading.Lock()
        self._key: Any = None

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

    def seal(self, value: str) -> str:
        """Return it sealed; "" stays "" ."""
        from joserfc import jwe

        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, value.encode(), self._own_key()) if value else ""

    def open(self, sealed: str) -> str:
        """Return what was sealed; raises ConfigError where the key is another one."""
        from joserfc import jwe
        from joserfc.errors import JoseError

        if not sealed:
            return ""
        try:
            found = jwe.decrypt_compact(sealed, self._own_key()).plaintext
        except (JoseError, ValueError) as problem:
            raise ConfigError("a secret can't be opened: the key of this server is another than when it was set", self.path) from problem
        return (found or b"").decode()
