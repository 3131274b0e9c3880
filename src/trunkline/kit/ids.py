"""Random names and short digests."""

import hashlib
import os


def token(prefix: str) -> str:
    """Return a secret that nobody can guess, with a prefix that says what it is for (secret scanners look for it)."""
    return prefix + os.urandom(20).hex()


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of the parts, each with its length so that no two lists of parts collide."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(b"%d:" % len(raw) + raw)
    return total.hexdigest()
