"""What must not lie readable in the database: sealed (JSON Web Encryption, RFC 7516, A256GCM) with a key that lies in the server's folder."""

import os

from trunkline.model.errors import ConfigError
from trunkline.server.keyfile import KeyFile, make_secret, read_secret


class Sealer:
    """Seals texts; its methods may be called from any thread."""

    def __init__(self, folder: str) -> None:
        self.file = KeyFile(os.path.join(folder, "variables.key"), read_secret, make_secret)

    def seal(self, value: str) -> str:
        """Return it sealed; "" stays "" ."""
        from joserfc import jwe

        return jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, value.encode(), self.file.key()) if value else ""

    def open(self, sealed: str) -> str:
        """Return what was sealed; raises ConfigError where the key is another one."""
        from joserfc import jwe
        from joserfc.errors import JoseError

        if not sealed:
            return ""
        try:
            found = jwe.decrypt_compact(sealed, self.file.key()).plaintext
        except (JoseError, ValueError) as problem:
            raise ConfigError(
                "a secret can't be opened: the key of this server is another than when it was set", self.file.path
            ) from problem
        return (found or b"").decode()
