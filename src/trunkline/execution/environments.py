"""Warm environments: what a job installs before its real work is built once for all that defines it, then lent to every job.

The leading install commands of a script are recognised (nothing is guessed: a command that is not fully understood ends the recognised
part). They are keyed by the interpreter, their text, the content of every dependency file they read, and the index settings. The first
job with a key builds with uv's speed and a snapshot is taken right after the installs, before anything of the job runs. Later jobs get
a copy of their own (blocks are shared where the file system can), which stays in their workspace: the next job there gets it again after the
change time of each file was compared, which no program can set. Only what a job changed is copied anew.
"""

import fcntl
import marshal
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trunkline.execution import shellwords
from trunkline.execution.interpreters import Interpreter
from trunkline.kit import trees
from trunkline.kit.ids import digest
from trunkline.kit.record import field, mutable, record
from trunkline.kit.words import duration

FORMAT = "2"
EXPIRES = 24 * 3600.0

_USES_PYTHON = re.compile(r"\b(python[\d.]*|pip[\d.]*|pytest|tox|nox|uv|poetry|pipenv|virtualenv|ruff|mypy|black|flake8|twine)\b")
_PIP_FLAGS = {"-U", "--upgrade", "-q", "--quiet", "-qq", "--no-cache-dir", "--pre", "--no-deps", "--disable-pip-version-check", "--no-input", "--user",
              "--prefer-binary", "--no-warn-script-location", "--progress-bar=off"}  # fmt: skip
_DROPPED = {"-q", "--quiet", "-qq", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--prefer-binary", "--no-warn-script-location",
            "--progress-bar=off", "--user"}  # fmt: skip
_PIP_VALUES = {
    "-r",
    "--requirement",
    "-c",
    "--constraint",
    "-i",
    "--index-url",
    "--extra-index-url",
    "-f",
    "--find-links",
    "--trusted-host",
}
_PROJECT_FILES = (
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "poetry.lock",
    "Pipfile",
    "Pipfile.lock",
    "uv.lock",
    "tox.ini",
    "noxfile.py",
    ".python-version",
)
_HARMLESS = ("echo", "date", "pwd", "true", ":", "uname", "whoami")
_INDEX_SETTINGS = re.compile(
    r"(PIP|UV)_[A-Z_]*(INDEX|FIND_LINKS|CONSTRAINT|NO_BINARY|ONLY_BINARY|PRE|RESOLUTION|TRUSTED|CONFIG_FILE)[A-Z_]*\Z"
)
_PINNED = re.compile(r"[A-Za-z0-9_.\[\],-]+\s*===?\s*[^*\s;]+(\s*;.*)?\Z")


@mutable
class Recipe:
    """What a job installs: `steps` as written and how to build them, `rest` the script that remains, `folders` what the steps make."""

    interpreter: Interpreter
    steps: list[tuple[str, list[str]]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    rest_of: list[int] = field(default_factory=list)  # which command each of them comes from
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    pinned: bool = True

    def key(self, settings: Mapping[str, str], scope: str = "") -> str:
        """Return the digest of all that defines the environment, and of who may have built it."""
        parts: list[str | bytes] = [FORMAT + scope, self.interpreter.path, self.interpreter.version]
        parts += [text for text, _ in self.steps]
        for name in sorted(self.files):
            parts += [name, self.files[name]]
        for name in sorted(settings):
            if _INDEX_SETTINGS.match(name):
                parts += [name, settings[name]]
        return digest(*parts)


def uses_python(commands: tuple[str, ...]) -> bool:
    """Say whether a script mentions any of Python's tools, so that it needs an environment of its own."""
    return any(_USES_PYTHON.search(command) for command in commands)


def recognise(commands: tuple[str, ...], interpreter: Interpreter, workspace: str, values: dict[str, str]) -> Recipe:
    """Split a script into the installs it begins with and the rest."""
    recipe = Recipe(interpreter)
    reader = _Reader(recipe, workspace, values)
    done = False
    for number, command in enumerate(commands):
        recipe.rest_of += [number - 1] * (len(recipe.rest) - len(recipe.rest_of))
        if done or "\n" in command.strip():
            done = True
            recipe.rest.append(command)
            continue
        links = shellwords.chain(command.strip())
        taken = 0
        for link in links:
            if not reader.takes(link):
                break
            taken += 1
        if taken < len(links):
            done = True
            recipe.rest.append(" && ".join(links[taken:]))
    recipe.rest_of += [len(commands) - 1] * (len(recipe.rest) - len(recipe.rest_of))
    return recipe


class _Reader:
    """Recognises one simple command after the other."""

    def __init__(self, recipe: Recipe, workspace: str, values: dict[str, str]) -> None:
        self.recipe, self.workspace, self.values = recipe, workspace, values

    def takes(self, command: str) -> bool:
        """Take a command into the recipe; False ends the recognised part."""
        words = shellwords.split(command, self.values)
        if not words:
            return False
        name = words[0].rsplit("/", 1)[-1]
        if name in _HARMLESS or words[1:] in (["--version"], ["-V"]) or (words[0] in (".", "source") and self._activates(words)):
            self.recipe.rest.append(command)
            return True
        if re.fullmatch(r"python[\d.]*", name) and words[1:2] == ["-m"]:
            home = words[0].rpartition("/bin/")[0]
            if words[2:3] == ["venv"]:
                return self._venv(command, words[3:])
            if words[2:4] == ["pip", "install"]:
                return self._pip(command, words[4:], home)
            return False
        if re.fullmatch(r"pip[\d.]*", name) and words[1:2] == ["install"]:
            return self._pip(command, words[2:], words[0].rpartition("/bin/")[0])
        if words[0] == "virtualenv" or words[:2] == ["uv", "venv"]:
            return self._venv(command, words[1:] if words[0] == "virtualenv" else words[2:] or [".venv"])
        if words[:3] == ["uv", "pip", "install"]:
            return self._pip(command, [w for w in words[3:] if w != "--system"], "")
        if words[:2] == ["uv", "sync"]:
            return self._tool(command, ".venv", ("pyproject.toml", "uv.lock"))
        if words[:2] in (["poetry", "install"], ["pipenv", "install"], ["pipenv", "sync"]):
            return self._tool(command, "", ("poetry.lock", "Pipfile.lock"))
        if words[0] in ("tox", "nox") and ("--notest" in words or "--install-only" in words):
            return self._tool(command, f".{words[0]}", ())
        return False

    def _activates(self, words: list[str]) -> bool:
        """A virtual environment may be activated if the recipe makes it."""
        return (
            len(words) == 2
            and words[1].endswith("/bin/activate")
            and words[1][: -len("/bin/activate")].removeprefix("./") in self.recipe.folders
        )

    def _venv(self, command: str, words: list[str]) -> bool:
        folder = words[-1].removeprefix("./").rstrip("/") if words else ""
        flags = words[:-1]
        if not folder or folder.startswith(("/", "..", "-")) or any(f not in ("--seed", "--clear", "--upgrade-deps", "-q") for f in flags):
            return False
        self.recipe.folders.add(folder)
        target = f"{self.workspace}/{folder}"
        self.recipe.steps.append((command, ["uv", "venv", "--quiet", "--python", self.recipe.interpreter.path, "--seed", target]))
        return True

    def _pip(self, command: str, words: list[str], home: str) -> bool:
        """Take `pip install`; `home` is the environment that the command names, '' for the one that is active."""
        home = home.removeprefix("./")
        if home and home not in self.recipe.folders:
            return False
        uv: list[str] = []
        understood, at = True, 0
        while at < len(words):
            word = words[at]
            at += 1
            if word in _PIP_FLAGS or word in ("-e", "--editable"):
                if word in ("-e", "--editable"):
                    if at >= len(words) or not self._editable(words[at]):
                        return False
                    uv += ["-e", words[at]]
                    at += 1
                elif word not in _DROPPED:
                    uv.append("--prerelease=allow" if word == "--pre" else word)
                continue
            option, separator, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if option in _PIP_VALUES:
                if not separator:
                    if at >= len(words):
                        return False
                    value = words[at]
                    at += 1
                if option in ("-r", "--requirement", "-c", "--constraint") and not self._requirements(value, 0):
                    return False
                uv += ["--allow-insecure-host" if option == "--trusted-host" else option, value]
                continue
            if re.fullmatch(r"-r\S+", word):
                if not self._requirements(word[2:], 0):
                    return False
                uv += ["-r", word[2:]]
                continue
            if word.startswith("-"):
                understood = False
                continue
            if word.startswith((".", "/")) or "/" in word or word.endswith((".whl", ".gz", ".zip")) or "://" in word:
                return False  # it installs from the sources, which change with every commit
            if not _PINNED.match(word) and word not in ("pip", "setuptools", "wheel"):
                self.recipe.pinned = False
            uv.append(word)
        python = f"{self.workspace}/{home}" if home else ""
        build = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            python or "$ENVIRONMENT",
            "--compile-bytecode",
            "--index-strategy",
            "unsafe-best-match",
            *uv,
        ]
        self.recipe.steps.append((command, build if understood else []))
        return True

    def _editable(self, target: str) -> bool:
        match = re.fullmatch(r"\.(?:\[[A-Za-z0-9_, -]*\])?", target)
        if match:
            self.recipe.pinned = False
            self._project_files()
        return bool(match)

    def _tool(self, command: str, folder: str, locks: tuple[str, ...]) -> bool:
        self._project_files()
        if not any(name in self.recipe.files for name in locks):
            self.recipe.pinned = False
        if folder:
            self.recipe.folders.add(folder)
        self.recipe.steps.append((command, []))
        return True

    def _project_files(self) -> None:
        for name in _PROJECT_FILES:
            self._read(name)

    def _read(self, name: str) -> bytes | None:
        try:
            with open(f"{self.workspace}/{name}", "rb") as f:
                self.recipe.files[name] = f.read()
        except OSError:
            return None
        return self.recipe.files[name]

    def _requirements(self, name: str, depth: int) -> bool:
        """Read a requirements file and those it names; False where one is missing or leads to the sources."""
        normal = os.path.normpath(name)
        if depth > 10 or normal.startswith(("/", "..")) or "://" in name:
            return False
        content = self._read(normal)
        if content is None:
            return False
        for raw in content.decode("utf-8", "replace").replace("\\\n", " ").splitlines():
            line = re.sub(r"(^|\s)#.*", "", raw).strip()
            if not line:
                continue
            option = re.match(r"(-r|--requirement|-c|--constraint)[\s=]*(\S+)", line)
            if option:
                if not self._requirements(os.path.join(os.path.dirname(normal), option.group(2)), depth + 1):
                    return False
            elif re.match(r"(-e|--editable)\s", line) or line.startswith((".", "/")) or "file:" in line:
                return False
            elif not line.startswith("-") and not _PINNED.match(line.split(" --hash")[0].strip()):
                self.recipe.pinned = False
        return True


@record
class Lent:
    """An environment in place: `folder` has bin/, `note` is the sentence for the trace, `short` the beginning of its key."""

    folder: str
    note: str
    short: str = ""
    exit_code: int = 0


Run = Callable[[str, Mapping[str, str]], int]


class Environments:
    """The store of one machine."""

    def __init__(self, root: str, uv: str | None, scope: str = "", above: str = "") -> None:
        """A job could make an environment other than its key says, so what it builds is only for its own `scope`. It may use what scope `above` has built."""
        self.root, self.uv, self.scope, self.above = root, uv, scope, above

    def lend(
        self, recipe: Recipe, top: str, workspace: str, env: Mapping[str, str], run: Run, fresh: bool = False, expires: float = EXPIRES
    ) -> Lent:
        """Put the recipe's environment beside (and its folders into) a workspace, built now or reused. `run` runs a script in the sandbox."""
        key = self.keys(recipe, env)[-1]
        store = os.path.join(self.root, key[:32])
        folder = os.path.join(top, "env")
        os.makedirs(self.root, exist_ok=True)
        if self.above and not fresh:
            trusted = self.keys(recipe, env)[0]
            if os.path.isdir(f"{self.root}/{trusted[:32]}"):
                with self.locked(trusted):
                    lent, _ = self._reuse(trusted, recipe, top, workspace, expires)
                if lent is not None:
                    return lent
        with self.locked(key):
            lent, why_built = (None, "built") if fresh else self._reuse(key, recipe, top, workspace, expires)
            if lent is not None:
                return lent
            trees.remove(store)
            began = time.monotonic()
            code = self._build(recipe, folder, workspace, env, run)
            seconds = time.monotonic() - began
            if code:
                return Lent(folder, f"environment {key[:4]} could not be built", key[:4], code)
            _snapshot(store, top, workspace, recipe.folders, seconds)
            return Lent(folder, f"environment {key[:4]} {why_built} in {duration(seconds)}", key[:4])

    def keys(self, recipe: Recipe, env: Mapping[str, str]) -> tuple[str, ...]:
        """Return the keys under which a recipe's environment may be lent: that of the scope above, then the own one, under which it is built."""
        return (*([recipe.key(env, self.above)] if self.above else []), recipe.key(env, self.scope))

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Whoever comes second while it is built waits and reuses."""
        os.makedirs(self.root, exist_ok=True)
        lock = os.open(f"{self.root}/{key[:32]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _reuse(self, key: str, recipe: Recipe, top: str, workspace: str, expires: float) -> tuple[Lent | None, str]:
        """Lend what is kept under a key; where it can't be, return None and why it must be built."""
        store = os.path.join(self.root, key[:32])
        notes = _read_notes(store)
        if notes is None:
            return None, "built"
        if not recipe.pinned and time.time() - notes["built_at"] > expires:
            return None, f"built anew, its requirements are not pinned and it is older than {expires / 3600:.0f} h"
        began = time.monotonic()
        if not _clone(store, notes, top, workspace):
            return None, "built anew, a job had changed files in it"
        os.utime(store)
        saved = max(0.0, notes["seconds"] - (time.monotonic() - began))
        return Lent(os.path.join(top, "env"), f"environment {key[:4]} reused, saved {duration(saved)}", key[:4]), ""

    def _build(self, recipe: Recipe, folder: str, workspace: str, env: Mapping[str, str], run: Run) -> int:
        """Build with uv; where uv can't do it, let the commands themselves have the last word."""
        if self.uv and self._with(recipe, folder, workspace, env, run, quick=True) == 0:
            return 0
        return self._with(recipe, folder, workspace, env, run, quick=False)

    def _with(self, recipe: Recipe, folder: str, workspace: str, env: Mapping[str, str], run: Run, quick: bool) -> int:
        trees.empty(folder)  # not removed: it may be mounted in the job's sandbox
        for made in recipe.folders:
            trees.remove(f"{workspace}/{made}")
        python = recipe.interpreter.path
        seeds = "pip" if _release(recipe.interpreter.version) >= (3, 12) else "pip setuptools wheel"
        if quick and self.uv:
            script = [f"{_q(self.uv)} venv --quiet --python {_q(python)} {_q(folder)}"]
            if (
                not all((build and build[:2] == ["uv", "venv"]) or (build and "$ENVIRONMENT" not in build) for _, build in recipe.steps)
                or not recipe.steps
            ):
                script.append(f"{_q(self.uv)} pip install --quiet --python {_q(folder)} {seeds}")
        else:
            script = [f"{_q(python)} -m venv {_q(folder)}"]
        for text, build in recipe.steps:
            if quick and build:
                words = [folder if w == "$ENVIRONMENT" else w for w in build]
                script.append(" ".join([_q(self.uv or "uv"), *(_q(w) for w in words[1:])]))
            else:
                script.append(text)
        settings = {
            **env,
            "PATH": f"{folder}/bin:{env.get('PATH', '')}",
            "VIRTUAL_ENV": folder,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
        }
        return run("set -eo pipefail\n" + "\n".join(script) + "\n", settings)

    def evict(self, most: int) -> list[str]:
        """Remove what was not used for longest until the store has at most `most` bytes; return the folders."""
        try:
            entries = sorted((e.stat().st_mtime, e.path) for e in os.scandir(self.root) if e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []
        sizes = {path: trees.size_of(path) for _, path in entries}
        total, gone = sum(sizes.values()), []
        for _, path in entries[:-1] if entries else []:
            if total <= most:
                break
            trees.remove(path)
            total -= sizes[path]
            gone.append(path)
        return gone


def _q(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(p) for p in version.split(".")[:2] if p.isdigit())


def _read_notes(store: str) -> "dict[str, float] | None":
    try:
        with open(f"{store}/notes", "rb") as f:
            notes = marshal.loads(f.read())  # noqa: S302 - written by us, in a folder of ours
        return notes if isinstance(notes, dict) else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def _places(top: str, workspace: str, folders: "set[str] | list[str]") -> list[tuple[str, str]]:
    """Return (name in the store, folder beside or in the workspace) of each part."""
    return [("env", f"{top}/env"), *((f"project/{name}", f"{workspace}/{name}") for name in sorted(folders))]


def _snapshot(store: str, top: str, workspace: str, folders: set[str], seconds: float) -> None:
    """Copy everything into the store; note time and size of each file, and which files hold the path of this workspace."""
    draft = store + ".draft"
    trees.remove(draft)
    files: dict[str, tuple[int, int]] = {}
    own: dict[str, int] = {}
    bound: list[str] = []
    for name, folder in _places(top, workspace, folders):
        for path, info in trees.files_below(folder):
            source, key = f"{folder}/{path}", f"{name}/{path}"
            if _may_hold_paths(path, info.st_size) and _holds(source, top):
                bound.append(key)
            trees.place(source, f"{draft}/{key}", info)
            after = os.lstat(f"{draft}/{key}")
            files[key], own[key] = (after.st_mtime_ns, after.st_size), info.st_ctime_ns
    notes = {"built_at": time.time(), "seconds": seconds, "top": top, "files": files, "bound": bound, "folders": sorted(folders)}
    os.makedirs(draft, exist_ok=True)
    with open(f"{draft}/notes", "wb") as f:
        marshal.dump(notes, f)
    os.rename(draft, store)
    _note_own(top, store, notes, own)


def _note_own(top: str, store: str, notes: "dict[str, Any]", own: dict[str, int]) -> None:
    """Remember of which snapshot a workspace has a copy, and when each file of it last changed."""
    with open(f"{top}/env-notes", "wb") as f:
        marshal.dump(((store, notes["built_at"]), own), f)


def _own(top: str, store: str, notes: "dict[str, Any]") -> dict[str, int]:
    """Return what `_note_own` remembered, if it was for this snapshot."""
    try:
        with open(f"{top}/env-notes", "rb") as f:
            of, own = marshal.load(f)  # noqa: S302 - written by us, in a folder of ours
        return own if of == (store, notes["built_at"]) else {}
    except (OSError, ValueError, EOFError, TypeError):
        return {}


def _may_hold_paths(path: str, size: int) -> bool:
    name = path.rsplit("/", 1)[-1]
    if size > 1 << 20:
        return False
    return (
        "bin/" in path
        or name.endswith((".pth", ".cfg"))
        or name.startswith("__editable__")
        or name == "direct_url.json"
        or ".egg-link" in name
    )


def _holds(path: str, text: str) -> bool:
    if os.path.islink(path):
        return False
    with open(path, "rb") as f:
        return text.encode() in f.read()


def _clone(store: str, notes: "dict[str, Any]", top: str, workspace: str) -> bool:
    """Make the folders equal to the store, touching only what differs; False if the store itself was changed."""
    files: dict[str, tuple[int, int]] = notes["files"]
    bound, before = set(notes["bound"]), _own(top, store, notes)
    own: dict[str, int] = {}
    targets = dict(_places(top, workspace, notes["folders"]))
    for name, folder in targets.items():
        for path, info in list(trees.files_below(folder)):
            key = f"{name}/{path}"
            if before.get(key) == info.st_ctime_ns:
                own[key] = info.st_ctime_ns
            else:
                os.unlink(f"{folder}/{path}")
        for entry in list(os.scandir(folder)) if os.path.isdir(folder) else ():  # an empty x.dist-info would still look like an installed x
            if entry.is_dir(follow_symlinks=False):
                trees.remove_empty(entry.path)
        if name != "env":  # which may be mounted in the job's sandbox
            trees.remove_empty(folder)
    if len(own) == len(files):
        return True
    for key, known in files.items():
        if key in own:
            continue
        name = "env" if key.startswith("env/") else next(n for n in targets if n != "env" and key.startswith(n + "/"))
        source, target = f"{store}/{key}", f"{targets[name]}/{key[len(name) + 1 :]}"
        try:
            info = os.lstat(source)
        except FileNotFoundError:
            return False
        if (info.st_mtime_ns, info.st_size) != known and not os.path.islink(source):
            return False
        trees.place(source, target, info)
        if key in bound:
            with open(source, "rb") as f:
                content = f.read().replace(notes["top"].encode(), top.encode())
            with open(target, "wb") as f:
                f.write(content)
            os.chmod(target, info.st_mode & 0o777)
        own[key] = os.lstat(target).st_ctime_ns
    _note_own(top, store, notes, own)
    return True
