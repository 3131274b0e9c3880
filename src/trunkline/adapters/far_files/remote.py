"""Fetches one text over HTTP, carefully: the address comes out of somebody's pipeline file.

Every connection, after each redirect too, goes to an address that was looked at first: none of this machine, of private networks or of link-local
services, unless the host is on a list. At most a megabyte, at most fifteen seconds, however slowly it comes.
"""

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import Any

from trunkline.model.errors import ConfigError, OutsideError

LARGEST, SECONDS = 1 << 20, 15.0


class _Refused(Exception):
    """An address that must not be asked."""


def _connect(host: str, port: int, allowed: Collection[str], timeout: float) -> socket.socket:
    """Connect to the first public address of a host; raises _Refused where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    usable = [info for info in found if host in allowed or ipaddress.ip_address(info[4][0]).is_global]
    if not usable:
        raise _Refused(f"{host} is {found[0][4][0]}, an address of this machine or of a private network")
    problem: OSError | None = None
    for family, kind, protocol, _, address in usable:
        made = socket.socket(family, kind, protocol)
        made.settimeout(timeout)
        try:
            made.connect(address)
            return made
        except OSError as wrong:
            made.close()
            problem = wrong
    assert problem is not None
    raise problem


def _handlers(allowed: Collection[str]) -> list[urllib.request.BaseHandler]:
    context = ssl.create_default_context()

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = _connect(self.host, self.port, allowed, SECONDS)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            self.sock = context.wrap_socket(_connect(self.host, self.port, allowed, SECONDS), server_hostname=self.host)

    class ByHttp(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Plain, req)

    class ByHttps(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Secure, req)

    return [ByHttp(), ByHttps(), urllib.request.ProxyHandler({})]


def fetch(url: str, allowed: Collection[str] = ()) -> str:
    """Return the text at an address; raises ConfigError or OutsideError that says why not. Hosts in `allowed` may be private."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is no address", "it begins with https://")
    opener = urllib.request.OpenerDirector()
    for handler in (
        *_handlers(allowed),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    ends = time.monotonic() + SECONDS
    try:
        with opener.open(url, timeout=SECONDS) as reply:
            pieces, size = [], 0
            while piece := reply.read1(1 << 16):
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST:
                    raise ConfigError(f"{url} has more than {LARGEST >> 20} MB", "a pipeline file is smaller")
                if time.monotonic() > ends:
                    raise OutsideError(f"{url} took longer than {SECONDS:g} s", "copy the file into the repository")
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise OutsideError(f"{url} answered {refusal.code}", "is the address right, and can it be read without signing in?") from None
    except _Refused as refused:
        raise ConfigError(
            f"{url} must not be asked: {refused}", "an administrator may allow the host: include_hosts in the settings"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as problem:
        inner = getattr(problem, "reason", problem)
        if isinstance(inner, _Refused):
            raise ConfigError(
                f"{url} must not be asked: {inner}", "an administrator may allow the host: include_hosts in the settings"
            ) from None
        raise OutsideError(f"{url} can't be read: {inner}", "is the address right?") from None
    return b"".join(pieces).decode("utf-8", "replace")
