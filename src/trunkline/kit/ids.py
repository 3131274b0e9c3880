"""Random names and short digests."""

import os

try:  # the bare module: hashlib loads OpenSSL, which costs 3 ms on the way to the first job
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b


def token(prefix: str) -> str:
    """Return a secret that nobody can guess, with a prefix that says what it is for (secret scanners look for it)."""
    return prefix + os.urandom(20).hex()


def draft(path: str) -> str:
    """Return a name beside a path that no other thread or process has: what is written there takes its place whole."""
    return f"{path}.{os.urandom(8).hex()}.draft"


def digest(*parts: str | bytes) -> str:
    """Return the BLAKE2b-256 digest of the parts, each with its length so that no two lists of parts collide."""
    total = blake2b(digest_size=32)
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(b"%d:" % len(raw) + raw)
    return total.hexdigest()
