"""`.github/trunkline.lock`: which commit an action was when it was pinned, a line each: `owner/name@ref COMMIT`."""

from collections.abc import Mapping

FILE = ".github/trunkline.lock"


def read(text: str) -> dict[str, str]:
    """Return the commits by action and ref; lines that say something else are passed over."""
    found = {}
    for line in text.splitlines():
        name, _, commit = line.strip().partition(" ")
        if "@" in name and not name.startswith("#") and commit.strip():
            found[name] = commit.strip()
    return found


def written(pins: Mapping[str, str]) -> str:
    """Return the text for these."""
    head = "# Written by `trunkline actions lock`: what the actions of these workflows were when somebody looked at them.\n"
    return head + "".join(f"{name} {commit}\n" for name, commit in sorted(pins.items()))
