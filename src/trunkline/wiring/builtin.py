"""What is built in, by name. A new variant is one file in its room and one line here; the modules load when they are asked for."""

import importlib
from typing import cast

from trunkline.model.errors import UnknownName
from trunkline.ports.dialect import Dialect

DIALECTS = {"gitlab": "trunkline.adapters.dialects.gitlab.dialect:GitlabDialect"}


def dialect(name: str) -> Dialect:
    """Return the dialect of that name; raises UnknownName."""
    if name not in DIALECTS:
        raise UnknownName("dialect", name, DIALECTS)
    module, _, thing = DIALECTS[name].partition(":")
    return cast(Dialect, getattr(importlib.import_module(module), thing)())
