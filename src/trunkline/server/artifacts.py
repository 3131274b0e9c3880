"""Where the artifacts of jobs lie: a tree for each job in a folder; with a bucket that folder is what this server has at hand, and the bucket holds all.

In the bucket a job's artifacts are one zip, `artifacts/RUN/JOB.zip`, that any tool can read.
"""

import os
import threading
import time
from pathlib import Path

import structlog

from trunkline.execution import archives, caches
from trunkline.kit import trees
from trunkline.model.errors import OutsideError, TrunklineError
from trunkline.ports.blobs import Blobs
from trunkline.ports.store import Store

log = structlog.get_logger()
LATELY = 3600.0  # seconds for which what was used here stays at hand


class Artifacts:
    """Those of one server. Its methods may be called from any thread; with a bucket they may take as long as that takes."""

    def __init__(self, root: str, store: Store, bucket: Blobs | None = None) -> None:
        self.root, self.store, self.bucket = root, store, bucket
        self.turns = [threading.Lock() for _ in range(64)]

    def path(self, run: int, job: int) -> str:
        """Return the folder of a job's artifacts, whether they are there or not."""
        return os.path.join(self.root, str(run // 1000), str(run), str(job))

    def are_there(self, run: int, job: int) -> bool:
        """Say whether a job's artifacts are kept."""
        return os.path.isdir(self.path(run, job)) or bool(self._in_bucket([job]))

    def kept(self, run: int, jobs: list[int]) -> set[int]:
        """Return which of a run's jobs have artifacts that are kept."""
        here = {job for job in jobs if os.path.isdir(self.path(run, job))}
        return here | self._in_bucket([job for job in jobs if job not in here]).keys()

    def _in_bucket(self, jobs: list[int]) -> dict[int, float]:
        return self.store.read(lambda tx: tx.kept_artifacts(jobs)) if self.bucket is not None and jobs else {}

    def listing(self, run: int, job: int) -> list[tuple[str, int]]:
        """Return path and bytes of each file that a job has left, without fetching any."""
        path = self.path(run, job)
        if self.bucket is not None and not os.path.isdir(path):
            return self.store.read(lambda tx: tx.listed_artifacts(job))
        return [(name, info.st_size) for name, info in sorted(trees.files_below(path))]

    def bring(self, run: int, job: int) -> str:
        """Have a job's artifacts at hand; return their folder, which is not there if there are none. Raises OutsideError."""
        path = self.path(run, job)
        if self.bucket is None:
            return path
        with self.turns[job % len(self.turns)]:
            kept_at = self._in_bucket([job]).get(job)
            if kept_at is not None and (not os.path.isdir(path) or _stamp(path) != str(kept_at)):  # not here, or of an earlier attempt
                self._fetch(run, job, path)
                Path(path + ".kept").write_text(str(kept_at))
            elif os.path.isdir(path):
                os.utime(path)
        return path

    def bring_folder(self, folder: str) -> None:
        """Have at hand what belongs into a folder of ours."""
        run, job = os.path.split(folder)
        if self.bucket is not None and folder.startswith(self.root + os.sep):
            self.bring(int(os.path.basename(run)), int(job))

    def _fetch(self, run: int, job: int, path: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.zip.draft"
        assert self.bucket is not None
        try:
            if not self.bucket.get(_name(run, job), draft):
                raise OutsideError(f"the artifacts of job {job} are not in the bucket any more", "retry the job")
            with open(draft, "rb") as f:
                archives.unpack(f, path)
        finally:
            archives.forget(draft)

    def archive(self, run: int, job: int) -> str:
        """Return the path of a zip of a job's artifacts, which is for the caller to remove; "" where there are none."""
        if self.bucket is not None and self._in_bucket([job]):
            os.makedirs(self.root, exist_ok=True)
            path = f"{self.root}/{job}-{threading.get_ident()}-{time.monotonic_ns()}.zip"
            return path if self.bucket.get(_name(run, job), path) else ""
        return archives.zipped(self.path(run, job), os.path.dirname(self.root))

    def keep(self, run: int, job: int, expires_in: float | None) -> None:
        """Put into the bucket what a job has left. Raises OutsideError."""
        if self.bucket is None or not os.path.isdir(self.path(run, job)):
            return
        folder = self.path(run, job)
        with self.turns[job % len(self.turns)]:
            listing = self.listing(run, job)
            path = archives.zipped(folder, os.path.dirname(self.root))
            try:
                self.bucket.put(_name(run, job), path)
            finally:
                archives.forget(path)
            now = time.time()
            self.store.write(lambda tx: tx.keep_artifacts(run, job, now, listing, now + expires_in if expires_in else None))
            Path(folder + ".kept").write_text(str(now))

    def expire(self, run: int, job: int, at: float) -> None:
        """Note until when a job's artifacts are kept in the folder."""
        if self.bucket is None and os.path.isdir(self.path(run, job)):
            Path(self.path(run, job) + ".expires").write_text(str(at))

    def sweep(self, now: float) -> None:
        """Remove artifacts whose time has come; called where one server does it for all."""
        for note in Path(self.root).glob("*/*/*.expires"):
            try:
                if float(note.read_text()) < now:
                    trees.remove(str(note).removesuffix(".expires"))
                    note.unlink()
            except (ValueError, OSError) as problem:
                log.warning("artifact could not be removed", path=str(note), problem=str(problem))
        if self.bucket is None:
            return
        for run, job in self.store.read(lambda tx: tx.expired_artifacts(now)):
            try:
                self.bucket.delete([_name(run, job)])
                self.store.write(lambda tx, job=job: tx.forget_artifacts(job))  # type: ignore[misc]
                self._drop(self.path(run, job))
            except TrunklineError as problem:
                log.warning("artifact could not be removed", run=run, job=job, problem=problem.message)
                return

    def tidy(self, most: int) -> None:
        """With a bucket: keep at hand at most so many bytes, and what was used lately."""
        if self.bucket is None:
            return
        known: list[tuple[float, str]] = []
        for folder in Path(self.root).glob("*/*/*"):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > LATELY:
                if folder.name.isdigit() and not self._in_bucket([int(folder.name)]):
                    self._drop(str(folder))  # its time was over
                else:
                    known.append((folder.stat().st_mtime, str(folder)))
        for gone in caches.evict_oldest(known, most):
            self._drop(gone)

    @staticmethod
    def _drop(folder: str) -> None:
        trees.remove(folder)
        trees.remove(folder + ".kept")


def _stamp(folder: str) -> str:
    try:
        return Path(folder + ".kept").read_text()
    except FileNotFoundError:
        return ""


def _name(run: int, job: int) -> str:
    return f"artifacts/{run}/{job}.zip"
