"""What several forges share."""

import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from trunkline.model.errors import ConfigError, Refused


def check_digest(given: str, secret: str, body: bytes, header: str) -> None:
    """Check an HMAC-SHA256 of the body, in hex; raises Refused."""
    wanted = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not given:
        raise Refused(f"the hook is not signed: there is no {header}", "set the same secret here and at the forge")
    if not hmac.compare_digest(given.removeprefix("sha256="), wanted):
        raise Refused(f"the signature of the hook is wrong ({header})", "set the same secret here and at the forge")


def read(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return the JSON of a hook, also where it came as a form; raises ConfigError."""
    text = body
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        text = urllib.parse.parse_qs(body.decode("utf-8", "replace")).get("payload", [""])[0].encode()
    try:
        told = json.loads(text)
    except ValueError as wrong:
        raise ConfigError(f"the hook is no JSON: {wrong}") from None
    if not isinstance(told, dict):
        raise ConfigError("the hook is no JSON object")
    return told


def get(at: Any, *names: str) -> Any:
    """Return what lies below these names, None if nothing does."""
    for name in names:
        at = at.get(name) if isinstance(at, dict) else None
    return at


def text(at: Any, *names: str) -> str:
    """Return a text below these names, "" if there is none."""
    found = get(at, *names)
    return found if isinstance(found, str) else "" if found is None else str(found)


def split(url: str) -> tuple[str, str, str]:
    """Return scheme, host (with port) and path of what git fetches, also of scp's form; raises ConfigError."""
    if "://" not in url and ":" in url and not url.startswith("/"):
        host, _, path = url.rpartition("@")[2].partition(":")
        return "https", host, path.strip("/").removesuffix(".git")
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https", "ssh", "git"):
        raise ConfigError(f"{url!r} is no address of a repository", "https://HOST/OWNER/NAME.git")
    port = f":{parts.port}" if parts.port and parts.scheme in ("http", "https") else ""
    return "http" if parts.scheme == "http" else "https", f"{parts.hostname}{port}", parts.path.strip("/").removesuffix(".git")
