"""Regular expressions in RE2's syntax: searching takes time in proportion to the text, whatever the pattern."""

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False


def searches(pattern: str, text: str) -> bool:
    """Say whether a pattern is found in a text; raises ValueError that says what is wrong with the pattern."""
    return compiled(pattern).search(text) is not None


def compiled(pattern: str) -> "re2._Regexp":
    """Compile a pattern; raises ValueError that says what is wrong with it."""
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as wrong:
        said = wrong.args[0] if wrong.args else wrong
        raise ValueError(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from None
