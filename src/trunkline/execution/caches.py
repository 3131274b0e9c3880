"""Reusable input between runs: trees of files by key, per project. A cache only ever saves time: whatever is wrong with one is said and passed over."""

import os
import time
from collections.abc import Mapping

from trunkline.execution import artifacts
from trunkline.kit import processes, trees
from trunkline.kit.ids import digest
from trunkline.model.pipelines import Cache, When
from trunkline.model.variables import expand


def key_of(cache: Cache, workspace: str, values: Mapping[str, str]) -> str:
    """Return the key as people read it: the expanded text, or the prefix and a digest of the key files."""
    text = expand(cache.key, values)
    if not cache.key_files:
        return text or "default"
    contents = []
    for name in cache.key_files:
        if cache.by_commits:
            code, commit = processes.output(["git", "log", "-1", "--format=%H", "--", expand(name, values)], workspace)
            contents += [commit] if code == 0 and commit else []
            continue
        try:
            with open(f"{workspace}/{expand(name, values)}", "rb") as f:
                contents.append(f.read())
        except OSError:
            continue
    told = digest(*contents)[:24] if contents else "default"
    return f"{text}-{told}" if text else told


def _folder(root: str, key: str, cache: Cache, scope: tuple[str, str]) -> str:
    """Return where a key's files lie: apart for each project, and for protected refs unless the cache wants to be shared (cache:unprotect)."""
    project, split = scope
    return os.path.join(root, digest(project, "" if cache.unprotect else split, key)[:32])


def restore(root: str, cache: Cache, workspace: str, values: Mapping[str, str], scope: tuple[str, str]) -> str:
    """Copy the first cache found by key or fallback key into the workspace; return what to say about it."""
    key = key_of(cache, workspace, values)
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


def save(root: str, cache: Cache, workspace: str, values: Mapping[str, str], passed: bool, scope: tuple[str, str]) -> str:
    """Keep the cache's files under its key; return what to say about it."""
    key = key_of(cache, workspace, values)
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
