"""The Pythons of this machine: which one a job gets.

Starting a Python to ask it where it lives costs 20 to 60 ms, more than the rest of a small job; the answer is kept beside the environments
until the program it came from, or what decides for pyenv, changes.
"""

import marshal
import os
from collections.abc import Callable

from trunkline.kit import processes
from trunkline.kit.ids import draft
from trunkline.kit.record import record
from trunkline.model.errors import OutsideError


@record
class Interpreter:
    """A Python of this machine."""

    path: str
    version: str


def find_interpreter(wanted: str, known: Callable[[], list[Interpreter]], kept: str = "") -> Interpreter:
    """Return the interpreter for a version such as 3.9, 3.9.18 or '' (any); raises OutsideError that names those that exist."""
    if not wanted:
        return default_interpreter(kept)
    quick = _on_path(wanted)
    if quick is not None:
        return quick
    found = known()
    parts = wanted.split(".")
    matching = [i for i in found if i.version.split(".")[: len(parts)] == parts]
    if matching:
        return max(matching, key=lambda i: [int(p) for p in i.version.split(".") if p.isdigit()])
    listed = ", ".join(sorted({i.version for i in found}, key=lambda v: [int(p) if p.isdigit() else 0 for p in v.split(".")]))
    raise OutsideError(
        f"the image asks for Python {wanted}, which this machine does not have",
        f"it has {listed or 'none'}; install it, for example with: uv python install {wanted}",
    )


def _on_path(wanted: str) -> Interpreter | None:
    """Look at pyenv's and uv's folders first: two directory listings instead of starting every interpreter."""
    home = os.path.expanduser("~")
    candidates = []
    for folder, prefix in (
        (os.environ.get("PYENV_ROOT", f"{home}/.pyenv") + "/versions", ""),
        (f"{home}/.local/share/uv/python", "cpython-"),
    ):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            version = name.removeprefix(prefix).split("-")[0]
            if (
                name.startswith(prefix)
                and version.split(".")[: wanted.count(".") + 1] == wanted.split(".")
                and os.path.exists(f"{folder}/{name}/bin/python3")
            ):
                candidates.append(Interpreter(os.path.realpath(f"{folder}/{name}/bin/python3"), version))
    return max(candidates, key=lambda i: [int(p) for p in i.version.split(".") if p.isdigit()], default=None)


def all_interpreters() -> list[Interpreter]:
    """Ask the library that knows where Pythons hide; slow, so only where no quick answer exists."""
    import findpython

    return [Interpreter(str(v.executable), str(v.version)) for v in findpython.find_all()]


def default_interpreter(kept: str = "") -> Interpreter:
    """Return the python3 of this machine's PATH, resolved to the real program; `kept` is a file that remembers the answer."""
    asked = _decided_by()
    try:
        with open(kept, "rb") as f:
            told, path, version = marshal.loads(f.read())  # noqa: S302 - written by us, in a folder of ours
        if asked and told == asked and os.access(path, os.X_OK):
            return Interpreter(path, version)
    except (OSError, ValueError, EOFError, TypeError):
        pass
    found = _asked()
    if kept and asked:
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        written = draft(kept)
        with open(written, "wb") as f:
            f.write(marshal.dumps((asked, found.path, found.version)))
        os.replace(written, kept)
    return found


def _decided_by() -> str:
    """Return what decides which Python `python3` is, or '' where that can't be known without asking it."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    program = next((path for path in (os.path.join(f, "python3") for f in folders if f) if os.access(path, os.X_OK)), "")
    if not program:
        return ""
    with open(program, "rb") as f:
        is_program = f.read(4) == b"\x7fELF"
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    if not is_program and os.path.dirname(program) != f"{pyenv}/shims":
        return ""  # some other wrapper, with rules of its own
    facts = [
        program,
        os.path.realpath(program),
        _stamp(program),
        _stamp(os.path.join(os.path.dirname(os.path.dirname(program)), "pyvenv.cfg")),
    ]
    if not is_program:
        facts += [os.environ.get("PYENV_VERSION", ""), _stamp(f"{pyenv}/version")]
        folder = os.getcwd()
        while True:
            facts.append(_stamp(os.path.join(folder, ".python-version")))
            if folder == os.path.dirname(folder):
                break
            folder = os.path.dirname(folder)
    return "\n".join(facts)


def _stamp(path: str) -> str:
    try:
        info = os.stat(path)
    except OSError:
        return "-"
    return f"{info.st_mtime_ns} {info.st_ctime_ns} {info.st_size}"


def _asked() -> Interpreter:
    code, told = processes.output(["python3", "-c", "import sys; print(sys.base_prefix); print('.'.join(map(str, sys.version_info[:3])))"])
    if code:
        raise OutsideError("there is no python3 on this machine's PATH", "install Python 3")
    prefix, version = told.decode().split("\n")[:2]
    for candidate in (f"{prefix}/bin/python{'.'.join(version.split('.')[:2])}", f"{prefix}/bin/python3"):
        if os.path.exists(candidate):
            return Interpreter(os.path.realpath(candidate), version)
    raise OutsideError("the python3 of this machine's PATH has no home", f"looked in {prefix}")
