"""actions/cache with its parts restore and save: caches of this machine, by key and by the beginnings of keys. Source: its documentation."""

from trunkline.model.errors import ConfigError
from trunkline.ports.actions import Desk


def _asked(desk: Desk) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    key = desk.input("key")
    paths = tuple(line.strip() for line in desk.input("path").splitlines() if line.strip())
    if not key or not paths:
        raise ConfigError(f"the input {'key' if not key else 'path'} must be given")
    return key, paths, tuple(line.strip() for line in desk.input("restore-keys").splitlines() if line.strip())


def restore(desk: Desk) -> None:
    """Bring a cache; say which."""
    key, paths, fallbacks = _asked(desk)
    found = desk.restore_cache(key, fallbacks, paths)
    desk.output("cache-primary-key", key)
    desk.output("cache-matched-key", found)
    desk.output("cache-hit", "true" if found == key else "false" if found else "")
    desk.say(f"cache {found} restored" if found else f"no cache for {key}")
    if not found and desk.flag("fail-on-cache-miss"):
        raise ConfigError(f"there is no cache for {key}, and fail-on-cache-miss says that there must be")


def save(desk: Desk) -> None:
    """Keep a cache."""
    key, paths, _ = _asked(desk)
    desk.say(desk.save_cache(key, paths))


def cache(desk: Desk) -> None:
    """Bring a cache, and keep one at the end where the key was not there."""
    key, paths, _ = _asked(desk)
    if not desk.flag("lookup-only"):
        restore(desk)

    def after() -> None:
        if desk.passed:
            desk.say(desk.save_cache(key, paths))
        else:
            desk.say(f"cache {key}: not saved, the job failed")

    desk.at_end(after)
