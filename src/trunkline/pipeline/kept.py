"""The compiled pipeline, kept beside the repository and keyed by what it came from, so that the next run reads no YAML.

A pickle that may only name classes of `trunkline.model`: a foreign file can at worst be refused. Anything wrong with it means: compile again.
"""

import os
import pickle
import sys

from trunkline import __version__
from trunkline.kit.ids import draft
from trunkline.model.diagnostics import Diagnostic
from trunkline.model.pipelines import Pipeline

State = tuple[tuple[str, int, int], ...]


class Reader(pickle.Unpickler):
    """An unpickler that knows only the nouns of trunkline.model."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("trunkline.model."):
            __import__(module)
            return getattr(sys.modules[module], name)
        raise pickle.UnpicklingError(f"{module}.{name} has no business here")


def state_of(root: str, files: tuple[str, ...]) -> State:
    """Return each file's time and size; a missing file has size -1."""
    out = []
    for file in files:
        try:
            s = os.stat(os.path.join(root, file))
            out.append((file, s.st_mtime_ns, s.st_size))
        except OSError:
            out.append((file, 0, -1))
    return tuple(out)


def load(path: str, key: str, root: str) -> tuple[Pipeline, tuple[Diagnostic, ...]] | None:
    """Return the kept pipeline if it was made by this version, for this key, from these very files."""
    try:
        with open(path, "rb") as f:
            kept = Reader(f).load()
        version, kept_key, state, pipeline, diagnostics = kept
        if version != __version__ or kept_key != key or state_of(root, tuple(file for file, _, _ in state)) != state:
            return None
        return pipeline, diagnostics
    except (OSError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError, KeyError, pickle.UnpicklingError):
        return None


def save(path: str, key: str, root: str, pipeline: Pipeline, diagnostics: tuple[Diagnostic, ...]) -> None:
    """Keep a pipeline; a disk that refuses is no reason to fail."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        written = draft(path)
        with open(written, "wb") as f:
            pickle.dump((__version__, key, state_of(root, pipeline.files), pipeline, diagnostics), f, protocol=5)
        os.replace(written, path)
    except (OSError, RecursionError):
        return
