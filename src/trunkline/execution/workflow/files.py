"""The files with which a step talks to its runner: GITHUB_OUTPUT, GITHUB_ENV, GITHUB_STATE and GITHUB_PATH.

Source: GitHub's documentation of environment files: `NAME=value`, or `NAME<<DELIMITER`, lines, the delimiter alone.
"""

from trunkline.model.errors import ConfigError

FORBIDDEN = frozenset(("NODE_OPTIONS",))  # a step must not change how the node of later steps starts


def read_pairs(text: str, file: str) -> tuple[tuple[str, str], ...]:
    """Return names and values in order; raises ConfigError with the line that is wrong."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, value = line[:equals], line[equals + 1 :]
        elif heredoc >= 0:
            name, delimiter = line[:heredoc], line[heredoc + 2 :]
            if delimiter not in lines[at:] or not delimiter:
                raise ConfigError(
                    f"{file}, line {at}: Matching delimiter not found {delimiter!r}", f"end the value with a line {delimiter}"
                )
            end = lines.index(delimiter, at)
            value = "\n".join(lines[at:end])
            at = end + 1
        else:
            raise ConfigError(f"{file}, line {at}: {line[:80]!r} is no NAME=value", "or NAME<<EOF, lines, EOF")
        if not name:
            raise ConfigError(f"{file}, line {at}: a name is missing before the value", "NAME=value")
        found.append((name, value))
    return tuple(found)


def read_environment(text: str) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return what GITHUB_ENV sets, and the names that it must not set; raises ConfigError."""
    pairs = read_pairs(text, "GITHUB_ENV")
    return tuple(p for p in pairs if p[0].upper() not in FORBIDDEN), tuple(n for n, _ in pairs if n.upper() in FORBIDDEN)


def read_paths(text: str) -> tuple[str, ...]:
    """Return the folders of GITHUB_PATH, as they are put before PATH one after the other: the last stands first."""
    return tuple(reversed([line.strip() for line in text.removeprefix("\ufeff").splitlines() if line.strip()]))
