"""upload-artifact and download-artifact: named artifacts of a run. Source: their documentation (version 4)."""

import fnmatch
import os
import shutil

from trunkline.kit.words import plural
from trunkline.model.errors import ConfigError
from trunkline.ports.actions import Desk


def upload(desk: Desk) -> None:
    """Keep files."""
    name = desk.input("name", "artifact")
    if any(c in name for c in '":<>|*?\r\n\\/'):
        raise ConfigError(f"{name!r} can't be the name of an artifact: it holds one of \" : < > | * ? \\ /")
    patterns = tuple(line.strip() for line in desk.input("path").splitlines() if line.strip())
    if not patterns:
        raise ConfigError("the input path must be given")
    count, said = desk.keep_artifact(name, patterns, desk.flag("include-hidden-files"))
    if said:
        desk.say(said)
    if not count:
        missing = f"no file matches {', '.join(patterns)}: the artifact {name} is empty"
        match desk.input("if-no-files-found", "warn"):
            case "error":
                raise ConfigError(missing)
            case "warn":
                desk.notice("warning", missing)
        return
    desk.say(f"artifact {name}: {plural(count, 'file')}")
    desk.output("artifact-id", name)
    desk.output("artifact-url", "")


def download(desk: Desk) -> None:
    """Bring artifacts of this run: one by its name, those that match a pattern, or all."""
    there = desk.artifacts()
    name, pattern = desk.input("name"), desk.input("pattern")
    target = os.path.normpath(os.path.join(desk.workspace, desk.input("path") or "."))
    if name:
        if name not in there:
            raise ConfigError(
                f"the run has no artifact {name!r}", f"it has {', '.join(there) or 'none'}; does this job need the one that leaves it?"
            )
        _copy(there[name], target)
        desk.say(f"artifact {name}: in {os.path.relpath(target, desk.workspace)}")
    else:
        wanted = [n for n in there if not pattern or fnmatch.fnmatchcase(n, pattern)]
        for one in wanted:
            _copy(there[one], target if desk.flag("merge-multiple") else os.path.join(target, one))
        desk.say(f"{plural(len(wanted), 'artifact')}: {', '.join(wanted) or 'none'}")
    desk.output("download-path", target)


def _copy(source: str, target: str) -> None:
    os.makedirs(target, exist_ok=True)
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
