"""JSON files that are replaced whole: a reader sees the old content or the new, never half of it."""

import json
import os
from typing import Any


def read(path: str) -> Any:
    """Return the content, or None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def write(path: str, value: object, indent: int | None = None) -> None:
    """Replace the content."""
    draft = f"{path}.draft"
    with open(draft, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent)
    os.replace(draft, path)
