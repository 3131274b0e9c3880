"""Frozen values with named fields, as `dataclasses` makes them, at less start-up cost.

`dataclasses` imports `inspect` and compiles six functions for every class: importing the nouns of a run took 39 ms with
it and 20 ms without (docs/decisions/0003). Type checkers know a record as a dataclass (PEP 681). Supported is what the house uses: defaults, `field`, frozen
or not, equality, hash, repr without secrets, pickling, `replace`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_):
        return lambda decorator: decorator


class _Missing:
    pass


_MISSING = _Missing()


class _Field:
    __slots__ = ("default", "factory", "shown")

    def __init__(self, default: object, factory: object, shown: bool) -> None:
        self.default, self.factory, self.shown = default, factory, shown


def field(*, default: Any = _MISSING, default_factory: Callable[[], Any] | None = None, repr: bool = True) -> Any:  # noqa: A002 - the name that dataclasses gives it
    """Say more about a field: a default that is made anew each time, or that its value is a secret."""
    return _Field(default, default_factory, repr)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen record of its annotated fields."""
    made: Any = _made(cls)
    made.__setattr__ = _refuse
    made.__delattr__ = _refuse
    made.__hash__ = _hash
    frozen: type[T] = made
    return frozen


@dataclass_transform(field_specifiers=(field,))
def mutable(cls: type[T]) -> type[T]:
    """Make a class a record whose fields may change; it has no hash."""
    made: type[T] = _made(cls)
    return made


def _made(cls: Any) -> Any:
    names = tuple(cls.__annotations__)
    defaults: dict[str, object] = {}
    factories: dict[str, object] = {}
    secret: set[str] = set()
    body = {k: v for k, v in cls.__dict__.items() if k not in names and k not in ("__dict__", "__weakref__")}
    for name in names:
        given = cls.__dict__.get(name, _MISSING)
        if isinstance(given, _Field):
            if given.factory is not None:
                factories[name] = given.factory
            if not given.shown:
                secret.add(name)
            given = given.default
        if given is not _MISSING:
            defaults[name] = given
    body |= {"__slots__": names, "__match_args__": names, "_fields": names, "_secret": secret}
    body |= {"__repr__": _repr, "__eq__": _eq, "__hash__": None, "__reduce__": _reduce}
    made = type(cls)(cls.__name__, cls.__bases__, body)
    made.__qualname__ = cls.__qualname__
    made.__init__ = _initialiser(names, [getattr(made, n).__set__ for n in names], defaults, factories)
    return made


def _initialiser(names: tuple[str, ...], setters: list[Any], defaults: dict[str, object], factories: dict[str, Any]) -> Any:
    count = len(names)

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - it becomes the class's own
        given = len(args)
        if given > count:
            raise TypeError(f"{type(self).__name__} takes {count} values, got {given}")
        for i in range(given):
            setters[i](self, args[i])
        for i in range(given, count):
            name = names[i]
            if name in kwargs:
                setters[i](self, kwargs.pop(name))
            elif name in defaults:
                setters[i](self, defaults[name])
            elif name in factories:
                setters[i](self, factories[name]())
            else:
                raise TypeError(f"{type(self).__name__} lacks a value for {name!r}")
        if kwargs:
            raise TypeError(f"{type(self).__name__} has no field {next(iter(kwargs))!r}, or got it twice")

    __init__.__defaults_of__ = defaults  # type: ignore[attr-defined]
    return __init__


def _refuse(self: object, name: str, *value: object) -> None:
    raise AttributeError(f"{type(self).__name__} is frozen: {name!r} can't change")


def _values(self: Any) -> tuple[object, ...]:
    return tuple(getattr(self, name) for name in self._fields)


def _repr(self: Any) -> str:
    shown = ", ".join(f"{n}={getattr(self, n)!r}" for n in self._fields if n not in self._secret)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), *_values(self)))


def _reduce(self: Any) -> tuple[object, ...]:
    return type(self), _values(self)


def replace(value: T, /, **changes: object) -> T:
    """Return a copy of a record with some fields changed; raises TypeError for a field that it does not have."""
    fields: tuple[str, ...] = value._fields  # type: ignore[attr-defined]
    for name in fields:
        if name not in changes:
            changes[name] = getattr(value, name)
    return type(value)(**changes)
