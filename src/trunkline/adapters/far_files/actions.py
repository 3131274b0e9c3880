"""Actions of other repositories: fetched once for each commit, from the forge or from a folder of mirrors (`OWNER/NAME` or `OWNER/NAME.git` below it)."""

import fcntl
import os
import re
import time

from trunkline.kit import processes, trees
from trunkline.kit.ids import digest, draft
from trunkline.model.errors import ConfigError, OutsideError

FORGE = "https://github.com"
FRESH = 300.0  # seconds for which the commit of a tag or branch is taken as it is
_SAFE = re.compile(r"[\w.-]+/[\w.-]+")
_SHA = re.compile(r"[0-9a-f]{40}")


class ActionSource:
    """Fetches actions. `mirror` is a folder or the address of a forge; "" is GitHub."""

    def __init__(self, cache: str, mirror: str = "") -> None:
        self.cache, self.mirror = cache, mirror or FORGE

    def url(self, name: str) -> str:
        """Return where a repository lies."""
        if "://" in self.mirror:
            return f"{self.mirror.rstrip('/')}/{name}"
        for candidate in (f"{self.mirror}/{name}", f"{self.mirror}/{name}.git"):
            if os.path.isdir(candidate):
                return candidate
        raise ConfigError(f"there is no action {name} in {self.mirror}", f"git clone --mirror {FORGE}/{name} {self.mirror}/{name}.git")

    def commit(self, name: str, ref: str) -> str:
        """Return the commit that a ref is now; raises OutsideError."""
        if not _SAFE.fullmatch(name) or ref.startswith("-"):
            raise ConfigError(f"{name}@{ref} can't be an action")
        if _SHA.fullmatch(ref):
            return ref
        url = self.url(name)
        stamp = os.path.join(self.cache, "refs", digest(url, ref)[:24])
        try:
            if time.time() - os.stat(stamp).st_mtime < FRESH and "://" in url:
                with open(stamp, encoding="ascii") as f:
                    return f.read()
        except OSError:
            pass
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        code, told = processes.output(["git", "ls-remote", "--", url, ref, f"{ref}^{{}}"], env=env)
        lines = [line.split("\t") for line in told.decode("utf-8", "replace").splitlines()]
        wanted = (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
        found = next((sha for name_ in wanted for sha, refname in lines if refname == name_), "")
        if code or not found:
            why = "it has no such tag or branch" if not code else "it can't be reached"
            raise OutsideError(
                f"the action {name}@{ref} can't be fetched from {url}: {why}",
                "set TRUNKLINE_ACTIONS to a folder with mirrors of the actions that you use",
            )
        os.makedirs(os.path.dirname(stamp), exist_ok=True)
        written = draft(stamp)
        with open(written, "w", encoding="ascii") as f:
            f.write(found)
        os.replace(written, stamp)
        return found

    def fetch(self, name: str, ref: str, pinned: str = "") -> str:
        """Return the folder with the files of an action; one that was pinned to a commit and is another now is refused."""
        try:
            commit = self.commit(name, ref)
        except OutsideError:
            if not pinned or not os.path.isdir(self._folder(name, pinned)):
                raise
            commit = pinned  # nobody can say whether the tag has moved, and what it was is here
        if pinned and commit != pinned:
            raise ConfigError(
                f"{name}@{ref} is commit {commit[:12]} now, but was {pinned[:12]} when it was pinned",
                f"look at {FORGE}/{name}/compare/{pinned[:12]}...{commit[:12]}, then: trunkline actions lock",
            )
        folder = self._folder(name, commit)
        if not os.path.isdir(folder):
            url = self.url(name)
            git_dir = os.path.join(self.cache, "git", digest(url)[:16])
            os.makedirs(os.path.dirname(git_dir), exist_ok=True)
            with open(f"{git_dir}.lock", "ab") as turn:  # git does not fetch twice at a time into one repository
                fcntl.flock(turn, fcntl.LOCK_EX)
                if not os.path.isdir(folder):
                    _unpack(url, git_dir, commit, ref, folder)
        return folder

    def _folder(self, name: str, commit: str) -> str:
        return os.path.join(self.cache, name.lower().replace("/", "--"), commit)


def _unpack(url: str, git_dir: str, commit: str, ref: str, folder: str) -> None:
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_DIR": git_dir}
    processes.output(["git", "init", "--quiet", "--bare", git_dir], env={**os.environ})
    for wanted in (commit, ref):
        code, _ = processes.output(["git", "fetch", "--quiet", "--depth", "1", "--no-tags", "--", url, wanted], env=env)
        if code == 0:
            break
    made = draft(folder)
    os.makedirs(made)
    index = {**env, "GIT_INDEX_FILE": f"{made}.index", "GIT_WORK_TREE": made}
    code, _ = processes.output(["git", "read-tree", "--reset", "-u", commit], env=index)
    if os.path.exists(f"{made}.index"):
        os.unlink(f"{made}.index")
    if code:
        trees.remove(made)
        raise OutsideError(f"the commit {commit[:12]} can't be fetched from {url}", "git fetch shows why")
    os.rename(made, folder)
