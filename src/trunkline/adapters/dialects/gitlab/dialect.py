"""The GitLab dialect behind the port: parse a file, name its includes, lower the tree of files to a pipeline."""

import json
import re
from collections.abc import Callable, Mapping

from trunkline.adapters.dialects.gitlab import inputs, keywords, parts, templates
from trunkline.adapters.dialects.gitlab.jobs import JobReader, manual_blocks
from trunkline.adapters.dialects.gitlab.merging import Extender, Referrer, overlay
from trunkline.kit import yamltree
from trunkline.kit.record import replace
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node, YamlMistake
from trunkline.model.conditions import judge
from trunkline.model.diagnostics import Diagnostic, Place, Severity
from trunkline.model.pipelines import AutoCancel, Job, Need, Pipeline
from trunkline.model.variables import expand
from trunkline.ports.dialect import AskedInput, Included, Source, Want
from trunkline.reading import Mistakes, place

FAR = ("remote", "project", "template", "component")


class GitlabDialect:
    """Implements ports.dialect.Dialect."""

    name = "gitlab"
    entry = ".gitlab-ci.yml"

    def parse(self, file: str, text: str, variables: Mapping[str, str], want: Want | None = None) -> Source:
        """Read one file; where it has a header document with `spec`, its inputs are put in."""
        try:
            documents = yamltree.read(text, file)
        except YamlMistake as mistake:
            wrong = Diagnostic(Severity.ERROR, "yaml", mistake.message, Place(file, mistake.line, mistake.column), mistake.hint)
            return Source(file, Node({}, 1, 1, file=file), (wrong,))
        m = Mistakes()
        given = _given(want)
        if len(documents) == 2 and isinstance(documents[0].value, dict) and "spec" in documents[0].value:
            header, document = documents
            at = header if want is None else given or Node(None, want.place.line, want.place.column, want.place.width, file=want.place.file)
            known = inputs.values(
                inputs.asked(header, m), given.value if given is not None and isinstance(given.value, dict) else {}, at, m
            )
            known |= inputs.component_facts(header, dict(want.facts) if want is not None else {}, m)
            documents = [document if m.has_errors else inputs.filled(document, known, variables, m)]
        elif given is not None and given.value:
            m.error(given, "inputs", f"{file} takes no inputs", "it begins without a header document with `spec`")
        if len(documents) > 1:
            m.error(documents[1], "yaml", "a second YAML document begins here; a pipeline file has one")
        if not documents or documents[0].value is None:
            return Source(
                file,
                Node({}, 1, 1, file=file),
                (*m.found, Diagnostic(Severity.ERROR, "yaml", "the file is empty", Place(file), "define at least one job")),
            )
        document = documents[0]
        if not isinstance(document.value, dict):
            m.error(document, "yaml", f"the file must be a mapping of jobs and keywords, this is {document.kind}")
            document = Node({}, 1, 1, file=file)
        return Source(file, document, tuple(m.found))

    def inputs(self, file: str, text: str) -> tuple[AskedInput, ...]:
        """Return what a first file asks for; nothing where it is broken."""
        try:
            documents = yamltree.read(text, file)
        except YamlMistake:
            return ()
        if len(documents) != 2 or not isinstance(documents[0].value, dict) or "spec" not in documents[0].value:
            return ()
        return tuple(
            AskedInput(
                a.name, a.kind, a.description, a.default.plain() if a.default is not None else None, a.default is not None, a.options
            )
            for a in inputs.asked(documents[0], Mistakes()).values()
        )

    def wants(
        self, source: Source, variables: Mapping[str, str], exists: Callable[[str], bool]
    ) -> tuple[tuple[Want, ...], tuple[Diagnostic, ...]]:
        """Name the files that `include` asks for."""
        m, found = Mistakes(), []
        document = source.document
        assert isinstance(document, Node)
        assert isinstance(document.value, dict)
        include = document.value.get("include")
        if include is None or include.value is None:
            return (), ()
        for item in include.value if isinstance(include.value, list) else [include]:
            if isinstance(item.value, str):
                if item.value.startswith(("http://", "https://")):
                    found.append(Want(item.value, place(item), url=expand(item.value, variables)))
                else:
                    found.append(_want(expand(item.value, variables), item))
                continue
            known = ("local", "rules", "inputs", "file", "ref", "integrity", *FAR)
            asked = m.mapping(item, "include", known)
            if "rules" in asked and not self._passes(asked["rules"], variables, exists, m):
                continue
            given = asked.get("inputs")
            if given is not None and given.value is not None:
                m.mapping(given, "include:inputs")
            if any(word in asked for word in FAR):
                found += _far(item, asked, given, variables, m)
            elif "local" in asked:
                found.append(_want(expand(m.text(asked["local"], "include:local"), variables), asked["local"], given))
            elif asked:
                m.error(item, "include", "this include names no file", "use include:local")
        return tuple(found), tuple(m.found)

    @staticmethod
    def _passes(node: Node, variables: Mapping[str, str], exists: Callable[[str], bool], m: Mistakes) -> bool:
        for rule in parts.rules(node, "include:rules", m) or ():
            if rule.condition is not None and not judge(rule.condition, variables).holds:
                continue
            if rule.exists is not None and not any(exists(expand(p, variables)) for p in rule.exists):
                continue
            return rule.when is None or rule.when.value != "never"
        return False

    def lower(self, tree: Included) -> tuple[Pipeline | None, tuple[Diagnostic, ...]]:
        """Merge the files, extend, dereference, read every job, check how they hang together."""
        m = Mistakes()
        document = _merged(tree)
        assert isinstance(document.value, dict)
        extender = Extender(document.value, m)
        job_names = [name for name in document.value if name not in keywords.GLOBAL]
        extended = {name: extender.extended(name) if name in job_names else node for name, node in document.value.items()}
        referrer = Referrer(extended, m)
        whole = {
            name: referrer.resolved(node)
            for name, node in extended.items()
            if name not in job_names or _is_job(name, node) or name == "pages"
        }
        stages = self._stages(whole.get("stages"), m)
        defaults = self._defaults(whole, m)
        reader = JobReader(defaults, stages, m)
        jobs: list[Job] = []
        groups: dict[str, list[Job]] = {}
        for name in job_names:
            if name.startswith("."):
                continue
            if name not in whole:
                node = document.value[name]
                hint = did_you_mean(name, keywords.GLOBAL)
                m.error(document.keys[name], "job", f'"{name}" is neither a keyword nor a job: its value is {node.kind}', hint)
                continue
            if not name or not isinstance(document.keys[name].value, str):
                m.error(document.keys[name], "job", f"a job's name must be a text, this is {name or 'empty'}", "put it in quotes")
                continue
            groups[name] = list(reader.read(name, whole[name]))
            jobs.extend(groups[name])
        if not jobs and not m.has_errors:
            m.error(document, "jobs", "the file defines no visible job", "a name that begins with a dot hides a job")
        jobs = _connect(jobs, groups, stages, m)
        jobs = [replace(job, allow_failure=manual_blocks(job)) if job.rules is None else job for job in jobs]
        workflow = whole.get("workflow")
        workflow_parts = m.mapping(workflow, "workflow", keywords.WORKFLOW) if workflow is not None and workflow.value is not None else {}
        pipeline = Pipeline(
            dialect=self.name,
            stages=stages,
            jobs=tuple(jobs),
            variables=parts.variables(whole["variables"], "variables", m, described=True) if "variables" in whole else (),
            workflow=parts.rules(workflow_parts["rules"], "workflow:rules", m, workflow=True) if "rules" in workflow_parts else None,
            name=m.string(workflow_parts["name"], "workflow:name") if "name" in workflow_parts else "",
            files=tuple(dict.fromkeys(_files(tree))),
            prefilled=parts.prefilled(whole["variables"], m) if "variables" in whole else (),
            auto_cancel=parts.auto_cancel(workflow_parts["auto_cancel"], m) if "auto_cancel" in workflow_parts else AutoCancel(),
        )
        return (None if m.has_errors else pipeline), tuple(m.found)

    @staticmethod
    def _stages(node: Node | None, m: Mistakes) -> tuple[str, ...]:
        named = m.strings(node, "stages", 2) if node is not None and node.value is not None else keywords.STAGES
        return (".pre", *(s for s in dict.fromkeys(named) if s not in (".pre", ".post")), ".post")

    @staticmethod
    def _defaults(whole: dict[str, Node], m: Mistakes) -> dict[str, Node]:
        defaults = dict(m.mapping(whole["default"], "default", keywords.DEFAULT)) if "default" in whole else {}
        for word in ("image", "services", "before_script", "after_script", "cache"):
            if word in whole:
                if word in defaults:
                    m.error(whole[word], "default", f"{word} stands both in default and at the top of the file", "keep the one in default")
                defaults[word] = whole[word]
        for word in sorted(keywords.NOT_YET.keys() & defaults.keys()):
            m.unsupported(defaults[word], word, f"default:{word} {keywords.NOT_YET[word]}")
        return defaults


def _far(item: Node, asked: dict[str, Node], given: Node | None, variables: Mapping[str, str], m: Mistakes) -> list[Want]:
    """Return what an include of a remote file, of files of another project, or of a template asks for."""
    sha256 = ""
    if "integrity" in asked:
        text = m.text(asked["integrity"], "include:integrity")
        if not text.startswith("sha256-"):
            m.error(asked["integrity"], "include", "include:integrity begins with sha256-", "sha256- and the digest in base64")
        sha256 = text.removeprefix("sha256-")
    if "remote" in asked:
        url = expand(m.text(asked["remote"], "include:remote"), variables)
        return [Want(url, place(asked["remote"]), "", given, url=url, sha256=sha256)]
    if "template" in asked:
        name = m.text(asked["template"], "include:template")
        if name in templates.TEMPLATES:
            return [Want(f"template:{name}", place(asked["template"]), "", given, text=templates.TEMPLATES[name])]
        hint = (
            did_you_mean(name, templates.TEMPLATES) or f"there are {', '.join(templates.TEMPLATES)}; or copy the file into the repository"
        )
        m.error(asked["template"], "include", f'there is no template "{name}" here', hint)
        return []
    if "component" in asked:
        return _component(asked["component"], given, variables, m)
    if "file" not in asked:
        m.error(item, "include", "include:project must name the file", "file: path/in/that/project.yml")
        return []
    project = expand(m.text(asked["project"], "include:project"), variables)
    ref = expand(m.string(asked["ref"], "include:ref"), variables) if "ref" in asked and asked["ref"].value is not None else ""
    files = asked["file"].value if isinstance(asked["file"].value, list) else [asked["file"]]
    return [
        Want(expand(m.text(file, "include:file"), variables).lstrip("/"), place(file), "", given, project=project, ref=ref, sha256=sha256)
        for file in files
    ]


def _component(node: Node, given: Node | None, variables: Mapping[str, str], m: Mistakes) -> list[Want]:
    """Return what a component's address asks for: HOST/GROUP/PROJECT/NAME@VERSION, a file below templates/ of that project."""
    text = m.text(node, "include:component")
    first, _, rest = text.partition("/")
    host = variables.get("CI_SERVER_FQDN", "")
    if not first.startswith("$") and host and first not in (host, host.split(":")[0]):
        m.error(node, "include", f"the component lies at {first}; only those of {host} can be included", "copy its project here")
        return []
    address, at, version = expand(rest, variables).rpartition("@")
    parts = [part for part in address.split("/") if part]
    if not at or not version or len(parts) < 3:
        m.error(node, "include", f"{text!r} is no component's address", "$CI_SERVER_FQDN/group/project/name@1.0")
        return []
    name, project = parts[-1], "/".join(parts[:-1])
    path = f"templates/{re.escape(name)}(\\.yml|/template\\.yml)"
    facts = (("name", name), ("reference", version))
    return [Want(name, place(node), path, given, project=project, ref=version, is_component=True, facts=facts)]


def _given(want: Want | None) -> Node | None:
    """Return the mapping of inputs that a file is handed: written where it is included, or plain values given to the first file."""
    given = want.given if want is not None else None
    if isinstance(given, dict) and want is not None:
        given = yamltree.read(json.dumps(given), want.place.file)[0]
    return given if isinstance(given, Node) and isinstance(given.value, dict) else None


def _want(path: str, node: Node, given: Node | None = None) -> Want:
    """Return what an include of a local path asks for. `*` stays inside a folder, `**` crosses them; nothing else is special there."""
    path = path.lstrip("/")
    expression = re.escape(path).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") if "*" in path else ""
    return Want(path, place(node), expression, given)


def _is_job(name: str, node: Node) -> bool:
    return not name.startswith(".") and isinstance(node.value, dict)


def _merged(tree: Included) -> Node:
    document = tree.source.document
    assert isinstance(document, Node)
    base: Node | None = None
    for child in tree.children:
        below = _merged(child)
        base = below if base is None else overlay(base, below)
    return document if base is None else overlay(base, document)


def _files(tree: Included) -> list[str]:
    return [tree.source.file, *(f for child in tree.children for f in _files(child))]


def _connect(jobs: list[Job], groups: dict[str, list[Job]], stages: tuple[str, ...], m: Mistakes) -> list[Job]:
    """Check needs and dependencies, and let a need on a parallel job mean all of its nodes."""
    names = {job.name: job for job in jobs}
    index = {stage: i for i, stage in enumerate(stages)}

    def at(where: Place | None, job: Job) -> Node:
        p = where or job.place
        return Node(None, p.line, p.column, p.width, file=p.file)

    def checked(job: Job, needs: tuple[Need, ...]) -> tuple[Need, ...]:
        out: list[Need] = []
        for need in needs:
            targets = [need.job] if need.job in names else [j.name for j in groups.get(need.job, [])]
            if not targets and not need.optional:
                hint = did_you_mean(need.job, [*names, *groups]) or ("a hidden job can't be needed" if need.job.startswith(".") else "")
                m.error(at(need.place, job), "needs", f'job "{job.name}" needs "{need.job}", but no job has that name', hint)
            for target in targets:
                if target == job.name:
                    m.error(at(need.place, job), "needs", f'job "{job.name}" needs itself')
                elif index.get(names[target].stage, 0) > index.get(job.stage, 0):
                    m.error(
                        at(need.place, job),
                        "needs",
                        f'job "{job.name}" needs "{target}", which is in the later stage "{names[target].stage}"',
                    )
                else:
                    out.append(replace(need, job=target))
        return tuple(dict.fromkeys(out))

    connected = []
    for job in jobs:
        needs = checked(job, job.needs) if job.needs is not None else None
        rules = job.rules
        if rules is not None and any(rule.needs for rule in rules):
            rules = tuple(replace(rule, needs=checked(job, rule.needs)) if rule.needs is not None else rule for rule in rules)
        dependencies = None
        if job.dependencies is not None:
            found: list[str] = []
            for name in job.dependencies:
                targets = [name] if name in names else [j.name for j in groups.get(name, [])]
                if not targets:
                    m.error(
                        at(None, job),
                        "dependencies",
                        f'job "{job.name}" takes artifacts of "{name}", but no job has that name',
                        did_you_mean(name, [*names, *groups]),
                    )
                elif needs is None and index.get(names[targets[0]].stage, 0) >= index.get(job.stage, 0):
                    m.error(
                        at(None, job), "dependencies", f'job "{job.name}" takes artifacts of "{name}", which is not in an earlier stage'
                    )
                elif needs is not None and not any(n.job in targets for n in needs):
                    m.error(
                        at(None, job),
                        "dependencies",
                        f'job "{job.name}" takes artifacts of "{name}", which is not among its needs',
                        "add it to needs",
                    )
                found.extend(targets)
            dependencies = tuple(found)
        connected.append(replace(job, needs=needs, rules=rules, dependencies=dependencies))
    for job in connected:
        _check_stop(job, groups, m, at)
    _find_cycle(connected, m, at)
    return connected


def _check_stop(job: Job, groups: dict[str, list[Job]], m: Mistakes, at: "Callable[[Place | None, Job], Node]") -> None:
    """Check that the job which stops an environment is there and does that."""
    name = job.environment.on_stop if job.environment is not None else ""
    if not name or job.environment is None:
        return
    other = next(iter(groups.get(name, ())), None)
    wrong = ""
    if other is None:
        wrong = "no job has that name"
    elif other.environment is None:
        wrong = "it has no environment"
    elif other.environment.name != job.environment.name:
        wrong = f'its environment is "{other.environment.name}"'
    elif other.environment.action != "stop":
        wrong = "its environment has no action: stop"
    if wrong:
        m.error(at(None, job), "on_stop", f'the environment of job "{job.name}" is stopped by "{name}", but {wrong}')


def _find_cycle(jobs: list[Job], m: Mistakes, at: "Callable[[Place | None, Job], Node]") -> None:
    """Report one cycle among needs, walking without recursion: a chain may be 10,000 long."""
    edges = {job.name: [n.job for n in job.needs or ()] for job in jobs}
    by_name = {job.name: job for job in jobs}
    state: dict[str, int] = {}
    for start in edges:
        if start in state:
            continue
        path: list[str] = []
        stack = [(start, iter(edges[start]))]
        state[start] = 1
        path.append(start)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                stack.pop()
                path.pop()
            elif state.get(following) == 1:
                cycle = [*path[path.index(following) :], following]
                job = by_name[name]
                need = next(n for n in job.needs or () if n.job == following)
                m.error(at(need.place, job), "needs", f"the needs form a circle: {' -> '.join(cycle)}")
                return
            elif following not in state and following in edges:
                state[following] = 1
                path.append(following)
                stack.append((following, iter(edges[following])))
