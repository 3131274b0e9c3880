"""What a job publishes once it has passed: a release of a tag, a site. A release that can't be made fails its job, as GitLab's does.

Sites are served from this server's own address, so each answer is sandboxed (its scripts run in an origin of their own, without anybody's session).
Such a page can't send a session cookie for its pictures and styles; whoever may see it gets an address with a ticket instead, that is good for a day.
"""

import base64
import hmac
import mimetypes
import os
import re
import time
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from starlette.responses import FileResponse, RedirectResponse, Response

from trunkline.kit import trees
from trunkline.kit.gitfiles import Revisions
from trunkline.kit.record import replace
from trunkline.model.errors import ConfigError, Refused, TrunklineError
from trunkline.model.pipelines import AssetLink, ReleaseSpec
from trunkline.model.publications import Site, TagRelease
from trunkline.model.runs import JobResult, JobRun, Reason, Run, Status
from trunkline.model.variables import expand
from trunkline.server.keyfile import KeyFile, make_secret, read_secret
from trunkline.server.merging import Merging

if TYPE_CHECKING:
    from trunkline.server.line import Line

log = structlog.get_logger()
DAY = 86400
_TAG = re.compile(r"(?!.*(\.\.|@\{|//|\.lock(/|$)))[^\s~^:?*\[\\\x00-\x1f\x7f/.-][^\s~^:?*\[\\\x00-\x1f\x7f]*(?<![/.])")


class Publisher:
    """Releases and sites of one server. Its methods may be called from any thread."""

    def __init__(self, line: "Line") -> None:
        self.line, self.store = line, line.store
        self.folder = os.path.join(line.data, "pages")
        self.key = KeyFile(os.path.join(line.data, "pages.key"), read_secret, make_secret)

    def publish(self, run: Run, job: JobRun, result: JobResult) -> JobResult:
        """Publish what a job that has passed asks for; return its result, a failure where that could not be done."""
        if result.status is not Status.PASSED or (job.job.release is None and job.job.pages is None):
            return result
        try:
            values = {**self.line.assigner.values(run, job), **dict(result.dotenv)}
            if job.job.pages is not None:
                self._site(run, job, values)
            if job.job.release is not None:
                self._release(run, job, job.job.release, values)
        except (TrunklineError, OSError) as problem:
            said = problem.message if isinstance(problem, TrunklineError) else str(problem)
            return replace(result, status=Status.FAILED, reason=Reason.SYSTEM, message=said)
        return result

    # releases

    def releases(self, project: str) -> list[TagRelease]:
        """Return a project's, newest first."""
        return list(reversed(self.store.read(lambda tx: tx.documents(TagRelease, project))))

    def _release(self, run: Run, job: JobRun, spec: ReleaseSpec, values: dict[str, str]) -> None:
        description = expand(spec.description, values)
        if "\n" not in description and len(description) < 200:
            path = description.removeprefix("./")
            kept = trees.read_below(self.line.artifacts.bring(run.id, job.id), path)
            text = Revisions(self.line.repositories.git_dir(run.project), run.event.revision.sha).read(path) if kept is None else kept
            description = text if path and text is not None else description
        links = tuple(AssetLink(expand(link.name, values), expand(link.url, values), link.kind) for link in spec.links)
        tag, message = expand(spec.tag_name, values), expand(spec.tag_message, values)
        made = TagRelease(
            0, run.project, tag, expand(spec.name, values) or tag, description, "", links, tuple(expand(m, values) for m in spec.milestones),
            run.event.user, run.id, job.id, time.time(),
        )  # fmt: skip
        self.release(made, expand(spec.ref, values) or run.event.revision.sha, message)

    def release(self, wanted: TagRelease, ref: str, message: str = "") -> TagRelease:
        """Save a release; the tag is made at `ref` where there is none yet. Raises ConfigError."""
        project, tag = wanted.project, wanted.tag
        if not tag or not _TAG.fullmatch(tag):
            raise ConfigError(f"{tag!r} can't be a tag's name")
        if any(known.tag == tag for known in self.releases(project)):
            raise ConfigError(f"there is a release of {tag} already", "release another tag")
        refs = self.line.repositories.refs(project)
        if f"refs/tags/{tag}" not in refs:
            at = self.line.repositories.revision(project, ref)
            if at is None:
                raise ConfigError(f"{project} has no {ref!r} to tag")
            Merging(self.line.repositories.git_dir(project)).tag(tag, at.sha, message, wanted.by)
        revision = self.line.repositories.revision(project, f"refs/tags/{tag}")
        saved = replace(wanted, sha=revision.sha if revision is not None else "", released_at=wanted.released_at or time.time())
        made = self.store.write(lambda tx: tx.add_document(saved))
        log.info("released", project=project, tag=tag)
        return made

    # sites

    def sites(self, project: str) -> list[Site]:
        """Return a project's sites."""
        return self.store.read(lambda tx: tx.documents(Site, project))

    def _site(self, run: Run, job: JobRun, values: dict[str, str]) -> None:
        spec = job.job.pages
        assert spec is not None
        publish = expand(spec.publish, values).strip("/")
        source = os.path.join(self.line.artifacts.bring(run.id, job.id), publish)
        if not publish or ".." in publish.split("/") or not os.path.isdir(source):
            raise ConfigError(f"there is no folder {publish or '.'!r} among the artifacts to publish", "say artifacts: {paths: [public]}")
        prefix = "-".join(re.findall(r"[a-z0-9]+", expand(spec.prefix, values).lower()))
        folder = f"{run.id}-{job.id}-{job.attempt}"
        target = os.path.join(self.folder, folder)
        trees.remove(target)
        for path, info in trees.files_below(source):
            full = os.path.realpath(os.path.join(source, path))
            if os.path.isfile(full) and full.startswith(os.path.realpath(source) + os.sep):
                trees.place(full, f"{target}/{path}", info if not os.path.islink(f"{source}/{path}") else os.stat(full), link=True)
        now = time.time()
        new = Site(0, run.project, prefix, folder, run.id, job.id, now, now + spec.expire_in if spec.expire_in else None)
        for old in [s for s in self.sites(run.project) if s.prefix == prefix]:
            self._forget(old)
        self.store.write(lambda tx: tx.add_document(new))
        log.info("a site is published", project=run.project, prefix=prefix or None)

    def _forget(self, site: Site) -> None:
        self.store.write(lambda tx: tx.remove_document(site))
        trees.remove(os.path.join(self.folder, site.folder))

    def tick(self, now: float) -> None:
        """Forget sites whose time is over."""
        for site in self.store.read(lambda tx: tx.documents(Site)):
            if site.expires_at is not None and site.expires_at <= now:
                self._forget(site)

    def ticket(self, project: str, until: int) -> str:
        """Return what proves that somebody may see a project's sites until then (epoch seconds)."""
        proof = hmac.new(self.key.key().raw_value, f"{project}\0{until}".encode(), sha256).digest()[:20]
        return f"~{until:x}.{base64.b32encode(proof).decode().rstrip('=').lower()}"

    def _check(self, ticket: str, project: str) -> None:
        until = int(ticket[1:].partition(".")[0] or "0", 16) if re.fullmatch(r"~[0-9a-f]{1,12}\.[a-z2-7]+", ticket) else 0
        if until < time.time() or not hmac.compare_digest(ticket, self.ticket(project, until)):
            raise Refused("this address of a page is too old", f"go to /pages/{project}/")

    def find(self, path: str) -> tuple[Site, str]:
        """Return the site that a path leads to (project/prefix/file), and the rest of it. Raises ConfigError."""
        everything = self.store.read(lambda tx: tx.documents(Site))
        fits = [s for s in everything if f"{path}/".startswith(f"{s.project}/{s.prefix + '/' if s.prefix else ''}")]
        if not fits:
            raise ConfigError(f"nothing is published at {path}", "a job named pages that passes publishes its folder public")
        site = max(fits, key=lambda s: (len(s.project), len(s.prefix)))
        return site, path[len(site.project) + 1 + (len(site.prefix) + 1 if site.prefix else 0) :]

    def entrance(self, path: str) -> str:
        """Return the address with a ticket, for somebody who may see it."""
        site, _ = self.find(path.rstrip("/"))
        whole = path if path.rstrip("/") != site.project and "." in path.rsplit("/", 1)[-1] else path.rstrip("/") + "/"
        return f"/pages/{self.ticket(site.project, int(time.time()) // DAY * DAY + 2 * DAY)}/{quote(whole)}"

    def serve(self, address: str, ticket: str, path: str) -> Response:
        """Answer for one file of a site, at an address with a ticket."""
        site, rest = self.find(path.rstrip("/"))
        self._check(ticket, site.project)
        root = os.path.realpath(os.path.join(self.folder, site.folder))
        full = os.path.realpath(os.path.join(root, rest))
        status = 200
        if os.path.isdir(full) and not path.endswith("/"):
            return RedirectResponse(address + "/", 302)
        if os.path.isdir(full):
            full = os.path.join(full, "index.html")
        elif not os.path.isfile(full) and os.path.isfile(full + ".html"):
            full += ".html"
        if not full.startswith(root + os.sep) or not os.path.isfile(full):
            full, status = os.path.join(root, "404.html"), 404
            if not os.path.isfile(full):
                raise ConfigError(f"the site of {site.project} has no {rest or 'index.html'}")
        kind = mimetypes.guess_type(full)[0] or "application/octet-stream"
        headers = {
            "Content-Security-Policy": "sandbox allow-scripts allow-popups allow-forms allow-downloads",
            "Access-Control-Allow-Origin": "*",
            "Referrer-Policy": "no-referrer",
        }
        return FileResponse(full, status, headers, media_type=kind)
