"""Reusable input between runs: trees of files by key, per project. A cache only ever saves time: whatever is wrong with one is said and passed over."""

import os
import time
from collections.abc import Callable, Mapping

from trunkline.execution import artifacts
from trunkline.kit import processes, trees
from trunkline.kit.ids import digest
from trunkline.model.pipelines import Cache, When
from trunkline.model.variables import expand


def key_of(cache: Cache, workspace: str, values: Mapping[str, str], git_dir: str | None, sha: str) -> str:
    """Return the key as people read it: the expanded text, or the prefix and a digest of the key files.

    It is asked for before the job runs, and git is asked in the repository that the job's files come from: what a job leaves in its own `.git` must not be
    run by git outside of the sandbox.
    """

    def content(name: str) -> bytes:
        if cache.by_commits:
            argv = ["git", f"--git-dir={git_dir}", "log", "-1", "--format=%H", sha, "--", name]
            return processes.output(argv)[1] if git_dir and sha else b""
        try:
            with open(f"{workspace}/{name}", "rb") as f:
                return f.read()
        except OSError:
            return b""

    return keyed(cache, values, content)


def keyed(cache: Cache, values: Mapping[str, str], content: Callable[[str], bytes]) -> str:
    """The same, with what tells the content of a key file, or the commit that changed it last; nothing where there is none."""
    text = expand(cache.key, values)
    if not cache.key_files:
        return text or "default"
    contents = [found for name in cache.key_files if (found := content(expand(name, values)))]
    told = digest(*contents)[:24] if contents else "default"
    return f"{text}-{told}" if text else told


def _folder(root: str, key: str, cache: Cache, scope: tuple[str, str]) -> str:
    """Return where a key's files lie: apart for each project, and for protected refs unless the cache wants to be shared (cache:unprotect)."""
    project, split = scope
    return os.path.join(root, digest(project, "" if cache.unprotect else split, key)[:32])


def restore(root: str, cache: Cache, key: str, workspace: str, values: Mapping[str, str], scope: tuple[str, str]) -> str:
    """Copy the first cache found by key or fallback key into the workspace; return what to say about it."""
    if expand(cache.policy, values) == "push":
        return f"cache {key}: only saved, not restored (policy: push)"
    last = values.get("CACHE_FALLBACK_KEY", "")
    for candidate in (key, *(expand(k, values) for k in cache.fallback_keys), *((last,) if last else ())):
        folder = _folder(root, candidate, cache, scope)
        if os.path.isdir(folder):
            count = artifacts.restore(folder, workspace)
            os.utime(folder)
            return f"cache {candidate}: {count} files restored"
    return f"cache {key}: none yet"


def save(root: str, cache: Cache, key: str, workspace: str, values: Mapping[str, str], passed: bool, scope: tuple[str, str]) -> str:
    """Keep the cache's files under its key; return what to say about it."""
    if expand(cache.policy, values) == "pull":
        return f"cache {key}: not saved (policy: pull)"
    if cache.when is not When.ALWAYS and (cache.when is When.ON_SUCCESS) != passed:
        return f"cache {key}: not saved (when: {cache.when.value})"
    found = artifacts.collect(workspace, cache.paths, (), values)
    if not found.paths:
        return f"cache {key}: not saved, no file matches {', '.join(cache.paths)}"
    artifacts.keep(workspace, found.paths, _folder(root, key, cache, scope))
    return f"cache {key}: {len(found.paths)} files saved"


def evict(root: str, most: int) -> list[str]:
    """Remove the caches that were not used for longest until all together have at most `most` bytes; return their folders."""
    try:
        entries = [(e.stat().st_mtime, e.path) for e in os.scandir(root) if e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return evict_oldest(entries, most)


def evict_oldest(entries: list[tuple[float, str]], most: int) -> list[str]:
    """The same for folders anywhere, each with when it was used last (epoch seconds)."""
    sizes = {path: trees.size_of(path) for _, path in entries}
    total, gone = sum(sizes.values()), []
    for used, path in sorted(entries):
        if total <= most:
            break
        if path.endswith(".draft") and time.time() - used < 3600:
            continue
        trees.remove(path)
        total -= sizes[path]
        gone.append(path)
    return gone
