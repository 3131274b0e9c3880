"""One job of the file -> one `Job`, or one for each node of its `parallel`."""

from trunkline.adapters.dialects.gitlab import credentials, keywords, parts, publishing, triggers
from trunkline.kit.lazy import lazy
from trunkline.kit.record import replace
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model.pipelines import AllowFailure, Artifacts, Job, PagesSpec, Retry, When
from trunkline.model.variables import Variable
from trunkline.reading import MAX_NESTING, Mistakes, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trunkline.kit import patterns
else:
    patterns = lazy("trunkline.kit.patterns")

_NONE = Node(None, 0, 0)
WEEK = 7 * 86400.0


class JobReader:
    """Reads the jobs of one document, given its defaults and stages."""

    def __init__(self, defaults: dict[str, Node], stages: tuple[str, ...], m: Mistakes) -> None:
        self.defaults, self.stages, self.m = defaults, stages, m

    def read(self, name: str, node: Node) -> tuple[Job, ...]:
        """Return the job, or its parallel nodes; an unusable job gives none, and diagnostics."""
        m = self.m
        own = m.mapping(node, f'job "{name}"', keywords.JOB)
        key = node.keys.get("script", node)
        if not own:
            return ()
        if not any(word in own for word in ("script", "run", "trigger")):
            m.error(
                node, "script", f'job "{name}" has no script', "each visible job needs script, run or trigger; a leading dot hides a job"
            )
            return ()
        for word in sorted(keywords.NOT_YET.keys() & own.keys()):
            m.unsupported(node.keys[word], word, f'job "{name}": {word} {keywords.NOT_YET[word]}')
        cant = next((keywords.CANT_RUN[w] for w in keywords.CANT_RUN if w in own), "")
        if "run" in own:
            m.unsupported(node.keys["run"], "unsupported", f'job "{name}" can\'t run: {cant}')
        if "trigger" in own:
            for word in sorted(triggers.NEEDS_A_RUNNER & own.keys()):
                m.error(node.keys[word], word, f'job "{name}" has trigger, so it can\'t have {word}: nothing of it runs on a runner')
        if "rules" in own and ("only" in own or "except" in own):
            word = "only" if "only" in own else "except"
            m.error(node.keys[word], "rules", f'job "{name}" has both rules and {word}', f"say with rules what {word} says")
        if "rules" in own and "start_in" in own:
            m.error(node.keys["start_in"], "start_in", f'job "{name}" has both rules and start_in', "write start_in into the rule")
        job = self._job(name, own, node, key, cant)
        return self._parallel(job, own["parallel"]) if "parallel" in own and own["parallel"].value is not None else (job,)

    def _value(self, own: dict[str, Node], word: str) -> Node | None:
        """Return the job's own keyword or the default that it inherits."""
        if word in own:
            return own[word]
        if word not in self.defaults or (word in triggers.NEEDS_A_RUNNER and "trigger" in own):
            return None
        inherit = own.get("inherit")
        if inherit is not None and isinstance(inherit.value, dict) and "default" in inherit.value:
            allowed = inherit.value["default"]
            if allowed.value is False or (isinstance(allowed.value, list) and word not in [n.value for n in allowed.value]):
                return None
        return self.defaults[word]

    def _stage(self, name: str, own: dict[str, Node], node: Node) -> str:
        stage = self.m.text(own["stage"], f'job "{name}": stage') if "stage" in own else "test"
        if stage and stage not in self.stages:
            at = own.get("stage", node)
            hint = did_you_mean(stage, self.stages) or f"the stages are {', '.join(self.stages)}"
            self.m.error(at, "stage", f'job "{name}" is in stage "{stage}", but there is no such stage', hint)
        return stage

    def _job(self, name: str, own: dict[str, Node], node: Node, key: Node, cant: str) -> Job:
        m = self.m
        where = f'job "{name}"'

        def commands(word: str) -> tuple[str, ...]:
            found = self._value(own, word)
            lines = m.strings(found, f"{where}: {word}", MAX_NESTING) if found is not None and found.value is not None else ()
            if word == "script" and found is not None and found.value in ([], ""):
                m.error(found, "script", f"{where}: script is empty", "a job that does nothing says script: 'true'")
            return lines

        def part(word: str) -> Node | None:
            found = self._value(own, word)
            return None if found is None or found.value is None else found

        tokens, hooks, release = part("id_tokens"), part("hooks"), own.get("release")
        secrets, no_secret = credentials.secrets(own["secrets"], f"{where}: secrets", m) if own.get("secrets", _NONE).value else ((), "")
        site = publishing.pages(name, own, where, m)
        when = When.ON_SUCCESS
        if "when" in own:
            word = m.choice(own["when"], f"{where}: when", ("on_success", "on_failure", "always", "never", "manual", "delayed"))
            when = When(word) if word else When.ON_SUCCESS
        start_in = m.span(own["start_in"], f"{where}: start_in") if "start_in" in own else 0.0
        if when is When.DELAYED and not start_in:
            m.error(own["when"], "when", f"{where}: a delayed job says with start_in how long it waits", "for example start_in: 30 minutes")
        if "start_in" in own and when is not When.DELAYED and "rules" not in own:
            m.error(own["start_in"], "start_in", f"{where}: start_in goes with when: delayed")
        if start_in > WEEK:
            m.error(own["start_in"], "start_in", f"{where}: start_in is more than a week")
        image, services, caches = part("image"), part("services"), part("cache")
        artifacts, retry, timeout = part("artifacts"), part("retry"), part("timeout")
        tags, interruptible, dependencies = part("tags"), part("interruptible"), own.get("dependencies")
        return Job(
            name=name,
            stage=self._stage(name, own, node),
            place=place(key if key.line >= node.line else node),
            script=commands("script"),
            before_script=commands("before_script"),
            after_script=commands("after_script"),
            variables=parts.variables(own["variables"], f"{where}: variables", m) if "variables" in own else (),
            rules=parts.rules(own["rules"], f"{where}: rules", m) if "rules" in own else None,
            only=parts.ref_policy(own["only"], f"{where}: only", m, ("branches", "tags")) if part("only") else None,
            except_=parts.ref_policy(own["except"], f"{where}: except", m) if part("except") else None,
            when=when,
            start_in=start_in,
            allow_failure=parts.allow_failure(own["allow_failure"], f"{where}: allow_failure", m) if "allow_failure" in own else None,
            needs=parts.needs(own["needs"], f"{where}: needs", m) if "needs" in own and own["needs"].value is not None else None,
            far_needs=triggers.far_needs(own["needs"], f"{where}: needs", m) if "needs" in own else (),
            dependencies=m.strings(dependencies, f"{where}: dependencies") if dependencies and dependencies.value is not None else None,
            image=parts.image(image, f"{where}: image", m) if image else None,
            services=parts.services(services, f"{where}: services", m) if services else (),
            tags=m.strings(tags, f"{where}: tags", 2) if tags else (),
            artifacts=_published(parts.artifacts(artifacts, f"{where}: artifacts", m) if artifacts else None, site),
            caches=parts.caches(caches, f"{where}: cache", m) if caches else (),
            retry=parts.retry(retry, f"{where}: retry", m) if retry else Retry(),
            timeout=m.span(timeout, f"{where}: timeout") if timeout else None,
            interruptible=m.boolean(interruptible, f"{where}: interruptible") if interruptible else False,
            environment=parts.environment(own["environment"], f"{where}: environment", m) if "environment" in own else None,
            coverage=self._coverage(own["coverage"], where) if "coverage" in own else "",
            resource_group=m.string(own["resource_group"], f"{where}: resource_group") if "resource_group" in own else "",
            trigger=triggers.trigger(own["trigger"], f"{where}: trigger", m) if "trigger" in own else None,
            group=name,
            inherit_variables=self._inherited(own.get("inherit")),
            id_tokens=credentials.id_tokens(tokens, f"{where}: id_tokens", m) if tokens else (),
            secrets=secrets,
            pre_get_sources=parts.hooks(hooks, f"{where}: hooks", m) if hooks else (),
            release=publishing.release(release, f"{where}: release", m) if release is not None and release.value is not None else None,
            pages=site,
            confirmation=m.string(own["manual_confirmation"], f"{where}: manual_confirmation") if "manual_confirmation" in own else "",
            unsupported=cant or no_secret,
        )

    def _coverage(self, node: Node, where: str) -> str:
        text = self.m.text(node, f"{where}: coverage")
        if not (len(text) > 2 and text.startswith("/") and text.endswith("/")):
            self.m.error(node, "coverage", f"{where}: coverage must be a pattern between slashes", r"for example '/TOTAL.*? (\d+%)/'")
            return ""
        try:
            patterns.compiled(text[1:-1])
        except ValueError as mistake:
            self.m.error(node, "coverage", f"{where}: coverage is no pattern: {mistake}")
            return ""
        return text[1:-1]

    def _inherited(self, node: Node | None) -> tuple[str, ...] | None:
        """Return the names of the file's variables that the job takes, or None for all."""
        if node is None or not isinstance(node.value, dict):
            return None
        self.m.mapping(node, "inherit", ("default", "variables"))
        defaults = node.value.get("default")
        for item in defaults.value if defaults is not None and isinstance(defaults.value, list) else ():
            if item.value not in keywords.DEFAULT:
                hint = did_you_mean(str(item.value), keywords.DEFAULT)
                self.m.error(item, "inherit", f"inherit:default: {item.value} is nothing that stands in default", hint)
        chosen = node.value.get("variables")
        if chosen is None or chosen.value is True:
            return None
        return () if chosen.value is False else self.m.strings(chosen, "inherit:variables")

    def _parallel(self, job: Job, node: Node) -> tuple[Job, ...]:
        m, where = self.m, f'job "{job.name}": parallel'
        if isinstance(node.value, dict):
            found = m.mapping(node, where, ("matrix",))
            rows = parts.matrix(found["matrix"], f"{where}:matrix", m) if "matrix" in found else []
            if not rows:
                m.error(node, "parallel", f"{where} has no matrix")
            if len(rows) > 200:
                m.error(node, "parallel", f"{where}:matrix makes {len(rows)} jobs; GitLab allows 200")
                rows = rows[:1]
            return tuple(
                replace(
                    job,
                    name=parts.matrix_name(job.name, row),
                    needs=parts.with_matrix(job.needs, row) if job.needs is not None else None,
                    variables=(*job.variables, *(Variable(n, v) for n, v in row)),
                    node_index=i,
                    node_total=len(rows),
                )
                for i, row in enumerate(rows, 1)
            )
        total = m.integer(node, where, 1, 200)
        return tuple(replace(job, name=f"{job.name} {i}/{total}", node_index=i, node_total=total) for i in range(1, total + 1))


def _published(artifacts: Artifacts | None, site: PagesSpec | None) -> Artifacts | None:
    """Return the artifacts of a job that publishes a site: its folder is always among them."""
    if site is None:
        return artifacts
    known = artifacts or Artifacts()
    return (
        known if any(p.rstrip("/") == site.publish.rstrip("/") for p in known.paths) else replace(known, paths=(*known.paths, site.publish))
    )


def manual_blocks(job: Job) -> AllowFailure:
    """Return what `when: manual` outside rules means: the pipeline goes on without the job."""
    return job.allow_failure if job.allow_failure is not None else AllowFailure(job.when is When.MANUAL)
