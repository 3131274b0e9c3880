"""hashFiles: one digest for all files that patterns match. Source: GitHub's documentation; the digest is that of the files' digests, in order."""

import os
from hashlib import sha256

from trunkline.kit import globs, trees


def hash_files(workspace: str, *wanted: str) -> str:
    """Return the SHA-256 over the SHA-256 digests of the matching files, sorted by path; "" where none matches. `!` takes files out."""
    taken: set[str] = set()
    paths = [path for path, _ in trees.files_below(workspace)]
    for pattern in (line.strip() for text in wanted for line in text.split("\n")):
        plain = pattern.removeprefix("!").removeprefix("./")
        if plain:
            found = {path for path in paths if globs.matches(plain, path)}
            taken = taken - found if pattern.startswith("!") else taken | found
    if not taken:
        return ""
    whole = sha256()
    for path in sorted(taken):
        one = sha256()
        with open(os.path.join(workspace, path), "rb") as f:
            while piece := f.read(1 << 20):
                one.update(piece)
        whole.update(one.digest())
    return whole.hexdigest()
