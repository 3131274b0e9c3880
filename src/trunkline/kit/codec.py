"""Records <-> plain values (dict, list, str, numbers) that any JSON library takes. A record becomes a dict of those fields that are not at their default."""

import types
import typing
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_NOTHING = object()


def to_plain(value: object) -> Any:
    """Return plain values; enums become their value, tuples lists."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Enum():
            return value.value
        case tuple() | list():
            return [to_plain(v) for v in value]
        case dict():
            return {k: to_plain(v) for k, v in value.items()}
    defaults: dict[str, object] = type(value).__init__.__defaults_of__  # type: ignore[attr-defined]
    fields: tuple[str, ...] = value._fields  # type: ignore[attr-defined]
    return {name: to_plain(v) for name in fields if (v := getattr(value, name)) != defaults.get(name, _NOTHING)}


def from_plain(cls: type[T], plain: Any) -> T:
    """Build a record (or any type that records hold) from plain values; unknown keys are passed over, so that older programs read newer data."""
    built: T = _built(cls, plain)
    return built


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _built(kind: Any, plain: Any) -> Any:
    if plain is None:
        return None
    if hasattr(kind, "_fields"):
        hints = _hints(kind)
        return kind(**{name: _built(hints[name], v) for name, v in plain.items() if name in hints})
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return _built(inner[0], plain) if len(inner) == 1 else plain
    if origin is tuple:
        args = typing.get_args(kind)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_built(args[0], v) for v in plain)
        return tuple(_built(a, v) for a, v in zip(args, plain, strict=True))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return plain
