"""Reads just enough shell to recognise simple commands: words, quotes, `&&` and line ends. Anything else is not understood, and says so."""

import re

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]<>!~^-]+")
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def split(line: str, values: "dict[str, str]") -> list[str] | None:
    """Return the words of a simple command with known variables in place, or None if it is more than a simple command."""
    words: list[str] = []
    word, open_word = "", False
    at = 0
    while at < len(line):
        c = line[at]
        if c in " \t":
            if open_word:
                words.append(word)
            word, open_word = "", False
            at += 1
            continue
        open_word = True
        if c == "'":
            end = line.find("'", at + 1)
            if end < 0:
                return None
            word += line[at + 1 : end]
            at = end + 1
        elif c == '"':
            end = line.find('"', at + 1)
            inner = line[at + 1 : end] if end > 0 else "`"
            if "`" in inner or "\\" in inner or "$(" in inner:
                return None
            replaced = _replaced(inner, values)
            if replaced is None:
                return None
            word += replaced
            at = end + 1
        elif c == "$":
            match = _REFERENCE.match(line, at)
            if match is None or (match.group(1) or match.group(2)) not in values:
                return None
            value = values[match.group(1) or match.group(2)]
            if not _PLAIN.fullmatch(value):
                return None
            word += value
            at = match.end()
        else:
            match = _PLAIN.match(line, at)
            if match is None or ((c in "<>!") and not word):
                return None
            if any(x in match.group() for x in "<>") and not word and "'" not in line:
                return None
            if any(x in match.group() for x in "<>"):
                return None  # unquoted, it is a redirection
            word += match.group()
            at = match.end()
    if open_word:
        words.append(word)
    return words


def _replaced(text: str, values: "dict[str, str]") -> str | None:
    out, at = "", 0
    for match in _REFERENCE.finditer(text):
        name = match.group(1) or match.group(2)
        if name not in values:
            return None
        out += text[at : match.start()] + values[name]
        at = match.end()
    rest = text[at:]
    return None if "$" in out + rest else out + rest


def chain(line: str) -> list[str]:
    """Split at `&&` outside quotes."""
    parts, word, quote, at = [], "", "", 0
    while at < len(line):
        c = line[at]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif line.startswith("&&", at):
            parts.append(word.strip())
            word = ""
            at += 2
            continue
        word += c
        at += 1
    return [*parts, word.strip()]
