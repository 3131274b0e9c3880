"""Where a machine's container engine listens. Apart from what speaks to it, which is slow to load."""

import os


def find_engine(given: str = "") -> str:
    """Return the address of this machine's engine: what is given, DOCKER_HOST, or the first socket of Docker or Podman that is there; "" for none."""
    if given or os.environ.get("DOCKER_HOST"):
        return given or os.environ["DOCKER_HOST"]
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    sockets = ["/run/docker.sock", "/var/run/docker.sock", f"{own}/docker.sock", "/run/podman/podman.sock", f"{own}/podman/podman.sock"]
    for path in sockets:
        if os.path.exists(path) and os.access(path, os.R_OK | os.W_OK):
            return f"unix://{path}"
    return ""
