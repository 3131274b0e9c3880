"""Ports and connections of this machine."""

import socket
from collections.abc import Collection


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether nobody listens there now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def established(addresses: Collection[str]) -> dict[str, int]:
    """Return how many TCP connections lead to each of these addresses (IPv4 host:port) now, as the kernel tells."""
    wanted = {}
    for address in addresses:
        host, _, port = address.rpartition(":")
        wanted[f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{int(port):04X}"] = address
    found = dict.fromkeys(addresses, 0)
    with open("/proc/net/tcp", encoding="ascii") as f:
        for line in f:
            parts = line.split()
            if parts[3] == "01" and parts[2] in wanted:
                found[wanted[parts[2]]] += 1
    return found
