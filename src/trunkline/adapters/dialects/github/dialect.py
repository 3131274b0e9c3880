"""The GitHub dialect behind the port: one workflow file, the workflows that it calls, and the pipeline that they are."""

import json
import posixpath
from collections.abc import Callable, Mapping

from trunkline.adapters.dialects.github import calls, lowering, workflow
from trunkline.adapters.dialects.github.lowering import Document, Lowerer
from trunkline.model.diagnostics import Diagnostic, Severity
from trunkline.model.pipelines import Pipeline
from trunkline.ports.dialect import AskedInput, Included, Source, Want
from trunkline.reading import Mistakes, node_at

FOLDER = ".github/workflows"


class GithubDialect:
    """Implements ports.dialect.Dialect. A repository has as many pipelines as it has files in `entry`."""

    name = "github"
    entry = FOLDER

    def parse(self, file: str, text: str, variables: Mapping[str, str], want: Want | None = None) -> Source:
        """Read one workflow."""
        root, found = workflow.read_document(file, text)
        if root is None:
            return Source(file, None, found)
        read, found = workflow.read(file, text)
        return Source(file, Document(root, read, text) if read is not None else None, found)

    def inputs(self, file: str, text: str) -> tuple[AskedInput, ...]:
        """Return what `workflow_dispatch` asks for."""
        read, _ = workflow.read(file, text)
        root, _ = workflow.read_document(file, text)
        if read is None or root is None:
            return ()
        dispatch = next((s for s in lowering.started_by(root) if s.event == "workflow_dispatch"), None)
        return tuple(
            AskedInput(
                a.name,
                {"choice": "string", "environment": "string"}.get(a.kind, a.kind),
                a.description,
                json.loads(a.default) if a.default else "" if not a.is_required else None,
                bool(a.default) or not a.is_required,
                tuple(a.options),
            )
            for a in (dispatch.inputs if dispatch is not None else ())
        )

    def wants(
        self, source: Source, variables: Mapping[str, str], exists: Callable[[str], bool]
    ) -> tuple[tuple[Want, ...], tuple[Diagnostic, ...]]:
        """Name the workflows that this one calls."""
        document = source.document
        if not isinstance(document, Document):
            return (), ()
        found = {}
        for job in document.read.jobs:
            if job.uses.startswith("./"):
                path = posixpath.normpath(job.uses)
                found[job.uses] = Want(path, job.place)
            elif job.uses:
                path, _, ref = job.uses.rpartition("@")
                owner, name, *rest = path.split("/")
                found[job.uses] = Want("/".join(rest), job.place, project=f"{owner}/{name}", ref=ref)
        return tuple(found.values()), ()

    def lower(self, tree: Included) -> tuple[Pipeline | None, tuple[Diagnostic, ...]]:
        """Turn a workflow and those that it calls into a pipeline."""
        document = tree.source.document
        if not isinstance(document, Document):
            return None, ()
        called: dict[tuple[str, str], Document] = {}
        texts: dict[str, str] = {}
        files: list[str] = []
        _collect(tree, called, texts, files)
        found = calls.check(document.read, texts.get)
        if any(d.severity is Severity.ERROR for d in found):
            return None, found
        jobs = Lowerer(called).jobs(tree.source.file, document)
        started = lowering.started_by(document.root)
        m = Mistakes()
        for job in jobs:
            for step in job.workflow.steps if job.workflow is not None else ():
                if step.unsupported:
                    m.unsupported(node_at(step.place), "steps", f"job {job.name!r}: {step.unsupported}")
        return (
            Pipeline(
                dialect=self.name,
                stages=(lowering.STAGE,),
                jobs=tuple(jobs),
                name=document.read.name or tree.source.file,
                files=tuple(dict.fromkeys(files)),
                started_by=started,
                concurrency=lowering.concurrency(document.root),
                run_name=lowering.run_name(document.root),
            ),
            (*found, *m.found),
        )


def _collect(tree: Included, called: dict[tuple[str, str], Document], texts: dict[str, str], files: list[str]) -> None:
    """Note which file each `uses` leads to."""
    files.append(tree.source.file)
    document = tree.source.document
    if not isinstance(document, Document):
        return
    uses = dict.fromkeys(job.uses for job in document.read.jobs if job.uses)
    for one in uses:
        ending = posixpath.normpath(one) if one.startswith("./") else one.rpartition("@")[0].split("/", 2)[2]
        for child in tree.children:
            if child.source.file.rpartition(":")[2] == ending and isinstance(child.source.document, Document):
                called[tree.source.file, one] = child.source.document
                texts[one] = child.source.document.text
    for child in tree.children:
        _collect(child, called, texts, files)
