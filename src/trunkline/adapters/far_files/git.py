"""Files of other projects, by git: from the repositories beside the server's own, or from where this checkout's remote leads."""

import os
import re
import time
from collections.abc import Callable, Collection

from trunkline.adapters.far_files.remote import fetch
from trunkline.kit import processes
from trunkline.kit.gitfiles import Revisions
from trunkline.kit.ids import digest
from trunkline.model.errors import ConfigError, OutsideError, TrunklineError
from trunkline.ports.files import FileReader

_SAFE = re.compile(r"\w[\w.+/-]*")
REMEMBERED = 30.0  # seconds
FRESH = 60.0  # seconds for which a fetched revision is taken as it is


class Repositories:
    """Implements ports.files.FarFiles for a server: other projects are its own."""

    def __init__(self, revision: Callable[[str, str], tuple[str, str] | None], allowed: Collection[str] = ()) -> None:
        """`revision` tells the git folder and the commit of a project's ref, or None."""
        self.revision, self.allowed = revision, allowed
        self.fetched: dict[str, tuple[float, str | TrunklineError]] = {}

    def remote(self, url: str) -> str:
        """Fetch it; what came of it is remembered for half a minute, so that a plan that is made again does not wait again."""
        now = time.monotonic()
        self.fetched = {known: told for known, told in self.fetched.items() if now - told[0] < REMEMBERED}
        if url not in self.fetched:
            try:
                self.fetched[url] = time.monotonic(), fetch(url, self.allowed)
            except TrunklineError as problem:
                self.fetched[url] = time.monotonic(), problem
        told = self.fetched[url][1]
        if isinstance(told, TrunklineError):
            raise told
        return told

    def tags(self, path: str) -> tuple[str, ...]:
        """Return the tags of a project on this server."""
        found = self.revision(path, "")
        if found is None:
            raise ConfigError(f"there is no project {path!r} on this server", "push it here")
        _, told = processes.output(["git", f"--git-dir={found[0]}", "for-each-ref", "--format=%(refname:strip=2)", "refs/tags"])
        return tuple(told.decode("utf-8", "replace").split())

    def project(self, path: str, ref: str) -> FileReader:
        """Return the files of a project on this server."""
        found = self.revision(path, ref)
        if found is None:
            raise ConfigError(
                f"there is no project {path!r} with {ref or 'a default branch'!r} on this server", "push it here, or copy the file"
            )
        return Revisions(*found)


class Remotes:
    """Implements ports.files.FarFiles for a checkout: other projects lie where its remote `origin` leads."""

    def __init__(self, folder: str, cache: str, allowed: Collection[str] = ()) -> None:
        self.folder, self.cache, self.allowed = folder, cache, allowed

    def remote(self, url: str) -> str:
        """Fetch it."""
        return fetch(url, self.allowed)

    def tags(self, path: str) -> tuple[str, ...]:
        """Ask for its tags."""
        code, told = processes.output(
            ["git", "ls-remote", "--tags", "--refs", "--", self._url(path)], env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        )
        if code:
            raise OutsideError(f"the tags of {path} can't be read", "git ls-remote shows why")
        return tuple(line.partition("refs/tags/")[2] for line in told.decode("utf-8", "replace").splitlines())

    def _url(self, path: str) -> str:
        code, told = processes.output(["git", "config", "--get", "remote.origin.url"], cwd=self.folder)
        url = sibling(told.decode("utf-8", "replace").strip(), path) if code == 0 else ""
        if not url:
            raise ConfigError(
                f"where {path!r} lies can't be told: this checkout has no remote `origin` at a forge", "copy the file into the repository"
            )
        return url

    def project(self, path: str, ref: str) -> FileReader:
        """Fetch one revision of it, without its history."""
        if not _SAFE.fullmatch(path) or not _SAFE.fullmatch(ref or "HEAD"):
            raise ConfigError(f"{path!r} at {ref!r} can't be a project and its ref")
        url = self._url(path)
        git_dir = os.path.join(self.cache, "projects", digest(url)[:16])
        stamp = os.path.join(git_dir, "fetched-" + digest(ref)[:16])
        try:
            if time.time() - os.stat(stamp).st_mtime < FRESH:
                with open(stamp, encoding="ascii") as f:
                    return Revisions(git_dir, f.read())
        except OSError:
            pass
        os.makedirs(git_dir, exist_ok=True)
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_DIR": git_dir}
        processes.output(["git", "init", "--quiet", "--bare"], env=env)
        code, _ = processes.output(["git", "fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, ref or "HEAD"], env=env)
        if code:
            raise OutsideError(f"{url} has no {ref or 'HEAD'!r}, or can't be read", "git fetch " + url + " shows why")
        code, told = processes.output(["git", "rev-parse", "FETCH_HEAD"], env=env)
        sha = told.decode("ascii").strip()
        with open(stamp, "w", encoding="ascii") as f:
            f.write(sha)
        return Revisions(git_dir, sha)


def sibling(url: str, path: str) -> str:
    """Return the address of another project at the same forge, or '' where that can't be told."""
    match = re.match(r"((?:https?|ssh|git)://[^/]+/|[^/@:]+@[^/:]+:)", url)
    return f"{match[1]}{path}.git" if match else ""
