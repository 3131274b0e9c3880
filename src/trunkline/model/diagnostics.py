"""What is wrong, or merely to be known, about a pipeline file: always with its place. Collected, never raised."""

from enum import Enum

from trunkline.kit.record import record


@record
class Place:
    """A spot in a file; line and column count from 1, width in characters."""

    file: str
    line: int = 1
    column: int = 1
    width: int = 1


class Severity(Enum):
    """ERROR stops the run; UNSUPPORTED means that Trunkline can't do yet what the line asks; NOTE is only to be known."""

    ERROR = "error"
    UNSUPPORTED = "unsupported"
    NOTE = "note"


@record
class Diagnostic:
    """One remark about one place. `rule` is a short stable name for it, `hint` what to do."""

    severity: Severity
    rule: str
    message: str
    place: Place
    hint: str = ""
