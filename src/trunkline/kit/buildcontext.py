"""What an image is built of: the files of a folder as an archive, and their digest."""

import io
import tarfile

from trunkline.kit import trees
from trunkline.kit.ids import digest


def of_folder(folder: str, file: str) -> tuple[str, bytes]:
    """Return the digest of all that an image is built of (the Dockerfile's name, files, modes, links; no times and owners), and the same as an archive."""
    buffer, parts = io.BytesIO(), [file]
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, info in sorted(trees.files_below(folder)):
            if path.startswith(".git/"):
                continue
            entry = tar.gettarinfo(f"{folder}/{path}", path)
            entry.uid = entry.gid = entry.mtime = 0
            if entry.issym():
                parts += [path, entry.linkname]
                tar.addfile(entry)
                continue
            with open(f"{folder}/{path}", "rb") as f:
                content = f.read()
            parts += [path, str(info.st_mode & 0o111), digest(content)]
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return digest(*parts), buffer.getvalue()
