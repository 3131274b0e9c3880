"""What is built in, by name. A new variant is one file in its room and one line here; the modules load when they are asked for."""

import importlib
from collections.abc import Callable
from typing import Any, cast

from trunkline.model.errors import UnknownName
from trunkline.ports.dialect import Dialect

DIALECTS = {"gitlab": "trunkline.adapters.dialects.gitlab.dialect:GitlabDialect"}


def dialect(name: str) -> Dialect:
    """Return the dialect of that name; raises UnknownName."""
    if name not in DIALECTS:
        raise UnknownName("dialect", name, DIALECTS)
    module, _, thing = DIALECTS[name].partition(":")
    return cast(Dialect, getattr(importlib.import_module(module), thing)())


def report_readers() -> dict[str, Callable[[bytes], dict[str, Any]]]:
    """Return what reads each kind of report."""
    from trunkline.adapters.report_formats import cobertura, junit

    return {"junit": junit.read, "cobertura": cobertura.read}
