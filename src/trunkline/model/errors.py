"""What can go wrong, by who can mend it.

TrunklineError
├── ConfigError      exit 2   what was written or asked is wrong: a file, an option, a setting
│   └── UnknownName           a name that is not among the known ones
├── OutsideError     exit 3   something outside failed: git, a disk, a network, a missing program
├── Refused          exit 4   understood, but not allowed
└── Conflict                  somebody else has changed it meanwhile: look again, decide again. Nobody sees it

Mistakes in pipeline files are no exceptions: they are collected as `Diagnostic`s. A bug leaves with exit status 70.
"""

from collections.abc import Iterable

from trunkline.kit.words import did_you_mean


class TrunklineError(Exception):
    """Anything that a person should read as a sentence with a hint."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class ConfigError(TrunklineError):
    """What was written or asked is wrong."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that is not among the known ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        super().__init__(f"no {what} named {name!r}", did_you_mean(name, names) or f"known: {listed or 'none'}")


class OutsideError(TrunklineError):
    """Something outside failed."""

    exit_code = 3


class Refused(TrunklineError):
    """Understood, but not allowed."""

    exit_code = 4


class Conflict(TrunklineError):
    """What was decided on is not how things are any more: another server has changed it."""

    def __init__(self, message: str = "it was changed by somebody else at the same time", hint: str = "try again") -> None:
        super().__init__(message, hint)
