"""Modules that load when they are first used. Only for the way of `trunkline run`, where each millisecond before the first job counts.

Write the import twice, so that type checkers and import contracts see it:
`if TYPE_CHECKING: import re` / `else: re = lazy("re")`, with `TYPE_CHECKING = False` above.
"""

import sys


class _Lazy:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        __import__(self._name)
        value = getattr(sys.modules[self._name], attribute)
        self.__dict__[attribute] = value
        return value


def lazy(name: str) -> _Lazy:
    """Return a stand-in for a module; it loads at the first attribute that is asked of it."""
    return _Lazy(name)
