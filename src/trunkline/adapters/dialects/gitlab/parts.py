"""The parts of a job that stand alone: rules, only/except, artifacts, cache, retry, images, environment, needs, variables."""

import re

from trunkline.adapters.dialects.gitlab import keywords
from trunkline.kit.record import replace
from trunkline.kit.yamltree import Node
from trunkline.model import conditions
from trunkline.model.conditions import Condition, ConditionMistake
from trunkline.model.pipelines import (
    AllowFailure,
    Artifacts,
    AutoCancel,
    Cache,
    EnvironmentSpec,
    Image,
    Need,
    Prefilled,
    RefPolicy,
    ReportSpec,
    Retry,
    Rule,
    Service,
    When,
)
from trunkline.model.variables import Variable
from trunkline.reading import MAX_NESTING, Mistakes, place


def variables(node: Node, where: str, m: Mistakes, described: bool = False) -> tuple[Variable, ...]:
    """Read `variables:`; `described` allows `options` and `description`, which only the file level has."""
    if node.value is None:
        return ()
    out = []
    for name, item in m.mapping(node, where).items():
        if isinstance(item.value, dict):
            known = ("value", "expand", "description", "options") if described else ("value", "expand")
            parts = m.mapping(item, f"{where}:{name}", known)
            value = m.string(parts["value"], f"{where}:{name}:value") if "value" in parts else ""
            raw = "expand" in parts and not m.boolean(parts["expand"], f"{where}:{name}:expand")
            options = m.strings(parts["options"], f"{where}:{name}:options") if "options" in parts else ()
            if options and value not in options:
                m.error(
                    parts.get("value", item), where, f"{where}:{name}: the default value must be one of its options ({', '.join(options)})"
                )
            out.append(Variable(name, value, raw=raw))
        elif item.value is None:
            out.append(Variable(name, ""))
        elif isinstance(item.value, list):
            m.error(item, where, f"{where}:{name} must be a string or a number, this is {item.kind}")
        else:
            out.append(Variable(name, m.string(item, f"{where}:{name}")))
    return tuple(out)


def prefilled(node: Node, m: Mistakes) -> tuple[Prefilled, ...]:
    """Return the variables of the file that have a description: whoever starts a run is asked for them."""
    found = []
    for name, item in node.value.items() if isinstance(node.value, dict) else ():
        if isinstance(item.value, dict) and "description" in item.value:
            said = item.value
            options = m.strings(said["options"], f"variables:{name}:options") if "options" in said else ()
            value = m.string(said["value"], f"variables:{name}:value") if "value" in said else ""
            found.append(Prefilled(name, value, m.string(said["description"], f"variables:{name}:description"), options))
    return tuple(found)


def condition(node: Node, where: str, m: Mistakes) -> Condition | None:
    """Parse the text of a condition; a mistake in it is shown at its own column."""
    if not isinstance(node.value, str):
        m.error(node, where, f"{where} must be a condition in quotes, this is {node.kind}")
        return None
    try:
        return conditions.parse(node.value)
    except ConditionMistake as mistake:
        at = Node(None, node.line, node.column + mistake.offset + (node.width == len(node.value) + 2), file=node.file)
        m.error(at if node.width > 1 else node, where, f"{where}: {mistake}", 'for example: $CI_COMMIT_BRANCH == "main"')
        return None


def _where(node: Node, word: str, where: str, m: Mistakes) -> str:
    given = node.value.get(word) if isinstance(node.value, dict) else None
    return m.string(given, f"{where}:{word}") if given is not None else ""


def paths(node: Node, where: str, m: Mistakes, extra: tuple[str, ...], known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Read a list of patterns, or a mapping with `paths` and other keys: `extra` ones are passed over with a note, `known` ones read elsewhere."""
    if isinstance(node.value, dict):
        parts = m.mapping(node, where, ("paths", *extra, *known))
        for name in extra:
            if name in parts:
                m.unsupported(node.keys[name], where, f"{where}:{name} is not supported yet; the paths are compared without it")
        return m.strings(parts["paths"], f"{where}:paths", 2) if "paths" in parts else ()
    return m.strings(node, where, 2)


def allow_failure(node: Node, where: str, m: Mistakes) -> AllowFailure:
    if isinstance(node.value, dict):
        parts = m.mapping(node, where, ("exit_codes",))
        return AllowFailure(exit_codes=_codes(parts["exit_codes"], where, m)) if "exit_codes" in parts else AllowFailure()
    return AllowFailure(m.boolean(node, where))


def _codes(node: Node, where: str, m: Mistakes) -> tuple[int, ...]:
    items = node.value if isinstance(node.value, list) else [node]
    return tuple(m.integer(item, f"{where}:exit_codes", 0, 255) for item in items)


def rules(node: Node, where: str, m: Mistakes, workflow: bool = False) -> tuple[Rule, ...] | None:
    """Read a list of rules; lists inside lists (from `!reference`) are flattened."""
    if not isinstance(node.value, list):
        if node.value is not None:
            m.error(node, where, f"{where} must be a list, this is {node.kind}", "begin each rule with '- if:'")
        return None
    out: list[Rule] = []

    def collect(items: list[Node], depth: int) -> None:
        for item in items:
            if isinstance(item.value, list) and depth < MAX_NESTING:
                collect(item.value, depth + 1)
            else:
                out.append(_rule(item, f"{where}:rule", m, workflow))

    collect(node.value, 0)
    return tuple(out)


def _rule(node: Node, where: str, m: Mistakes, workflow: bool) -> Rule:
    parts = m.mapping(node, where, keywords.RULE)
    said = [f"{name}: {_short(parts[name].plain())}" for name in ("if", "changes", "exists") if name in parts]
    when: When | None = None
    if "when" in parts:
        word = m.choice(
            parts["when"],
            f"{where}:when",
            ("always", "never") if workflow else ("on_success", "on_failure", "always", "never", "manual", "delayed"),
        )
        when = When(word) if word else None
        if when is When.DELAYED and "start_in" not in parts:
            m.error(
                parts["when"], where, f"{where}: a delayed job says with start_in how long it waits", "for example start_in: 30 minutes"
            )
        said.append(f"when: {word}")
    first = next(iter(node.keys.values()), node)
    return Rule(
        text=", ".join(said) or "(always)",
        place=place(first),
        condition=condition(parts["if"], f"{where}:if", m) if "if" in parts else None,
        changes=paths(parts["changes"], f"{where}:changes", m, (), ("compare_to",)) if "changes" in parts else None,
        compare_to=_where(parts["changes"], "compare_to", f"{where}:changes", m) if "changes" in parts else "",
        exists=paths(parts["exists"], f"{where}:exists", m, (), ("project", "ref")) if "exists" in parts else None,
        when=when,
        start_in=m.span(parts["start_in"], f"{where}:start_in") if "start_in" in parts else 0.0,
        allow_failure=allow_failure(parts["allow_failure"], f"{where}:allow_failure", m) if "allow_failure" in parts else None,
        variables=variables(parts["variables"], f"{where}:variables", m) if "variables" in parts else (),
        needs=needs(parts["needs"], f"{where}:needs", m) if "needs" in parts else None,
        interruptible=m.boolean(parts["interruptible"], f"{where}:interruptible") if "interruptible" in parts else None,
        auto_cancel=_auto_cancel(parts["auto_cancel"], m) if "auto_cancel" in parts else (),
        exists_project=_where(parts["exists"], "project", f"{where}:exists", m) if "exists" in parts else "",
        exists_ref=_where(parts["exists"], "ref", f"{where}:exists", m) if "exists" in parts else "",
    )


def _short(value: object) -> str:
    text = value if isinstance(value, str) else str(value).replace("'", "")
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."


def ref_policy(node: Node, where: str, m: Mistakes, default_refs: tuple[str, ...] = ()) -> RefPolicy:
    """Read `only` or `except`; a group that is not given asks nothing, except that `only` without refs means branches and tags."""
    if not isinstance(node.value, dict):
        return RefPolicy(place(node), refs=_refs(node, where, m))
    parts = m.mapping(node, where, keywords.ONLY)
    tests: list[tuple[str, Condition]] = []
    if "variables" in parts:
        listed = parts["variables"].value if isinstance(parts["variables"].value, list) else [parts["variables"]]
        for item in listed:
            parsed = condition(item, f"{where}:variables", m)
            if parsed is not None:
                tests.append((str(item.value), parsed))
    return RefPolicy(
        place(node),
        refs=_refs(parts["refs"], f"{where}:refs", m) if "refs" in parts else default_refs,
        variables=tuple(tests),
        changes=m.strings(parts["changes"], f"{where}:changes") if "changes" in parts else (),
        kubernetes="kubernetes" in parts,
    )


def _refs(node: Node, where: str, m: Mistakes) -> tuple[str, ...]:
    refs = m.strings(node, where)
    for ref in refs:
        try:
            conditions.ref_pattern(ref)
        except ConditionMistake as mistake:
            m.error(node, where, f"{where}: {mistake}")
    return refs


def needs(node: Node, where: str, m: Mistakes) -> tuple[Need, ...]:
    """Read `needs`; a need on certain matrix values becomes a need on the job of that name."""
    if not isinstance(node.value, list):
        m.error(node, where, f"{where} must be a list, this is {node.kind}")
        return ()
    out: list[Need] = []
    for item in node.value:
        if isinstance(item.value, str):
            out.append(Need(item.value, place=place(item)))
            continue
        if isinstance(item.value, list):
            out.extend(needs(item, where, m))
            continue
        parts = m.mapping(item, where, keywords.NEED)
        if "pipeline" in parts or "project" in parts:
            continue  # triggers.far_needs reads it
        if "job" not in parts:
            if parts or not isinstance(item.value, dict):
                m.error(item, where, f"{where}: each need names a job")
            continue
        job = m.text(parts["job"], f"{where}:job")
        artifacts = m.boolean(parts["artifacts"], f"{where}:artifacts") if "artifacts" in parts else True
        optional = m.boolean(parts["optional"], f"{where}:optional") if "optional" in parts else False
        names = [job]
        if "parallel" in parts:
            from_matrix = m.mapping(parts["parallel"], f"{where}:parallel", ("matrix",))
            combined = matrix(from_matrix["matrix"], f"{where}:parallel:matrix", m) if "matrix" in from_matrix else []
            names = [matrix_name(job, values) for values in combined]
        out.extend(Need(name, artifacts, optional, place(parts["job"])) for name in names)
    return tuple(out)


def matrix(node: Node, where: str, m: Mistakes) -> list[tuple[tuple[str, str], ...]]:
    """Return every combination of a matrix, in GitLab's order: the last variable changes fastest."""
    combinations: list[tuple[tuple[str, str], ...]] = []
    if not isinstance(node.value, list):
        m.error(node, where, f"{where} must be a list of mappings, this is {node.kind}")
        return []
    for item in node.value:
        rows: list[tuple[tuple[str, str], ...]] = [()]
        for name, values in m.mapping(item, where).items():
            listed = values.value if isinstance(values.value, list) else [values]
            texts = [m.string(v, f"{where}:{name}") for v in listed]
            if not texts:
                m.error(values, where, f"{where}:{name} has no values")
            rows = [(*row, (name, text)) for row in rows for text in texts]
            if len(rows) > 10_000:
                m.error(node, where, f"{where} makes more than 10,000 jobs")
                return []
        combinations.extend(rows)
    return combinations


def with_matrix(needs: tuple[Need, ...], row: tuple[tuple[str, str], ...]) -> tuple[Need, ...]:
    """Put a job's own matrix values for `$[[ matrix.NAME ]]` in what it needs."""
    values = dict(row)

    def value(match: "re.Match[str]") -> str:
        return values.get(match[1], match[0])

    return tuple(replace(n, job=re.sub(r"\$\[\[ *matrix\.(\w+) *\]\]", value, n.job)) if "$[[" in n.job else n for n in needs)


def matrix_name(job: str, values: tuple[tuple[str, str], ...]) -> str:
    """Return the name of one job of a matrix, as GitLab writes it."""
    return f"{job}: [{', '.join(text for _, text in values)}]"


def artifacts(node: Node, where: str, m: Mistakes) -> Artifacts | None:
    if node.value is None:
        return None
    parts = m.mapping(node, where, keywords.ARTIFACTS)
    expire: float | None = 30 * 86400.0
    if "expire_in" in parts:
        text = m.string(parts["expire_in"], f"{where}:expire_in")
        expire = None if text in ("never", "0") else m.span(parts["expire_in"], f"{where}:expire_in")
    when = m.choice(parts["when"], f"{where}:when", ("on_success", "on_failure", "always")) if "when" in parts else ""
    if "public" in parts and "access" in parts:
        m.error(node.keys["public"], where, f"{where} has both public and access", "say it with access")
    access = m.choice(parts["access"], f"{where}:access", ("all", "developer", "maintainer", "none")) if "access" in parts else "all"
    if "public" in parts and not m.boolean(parts["public"], f"{where}:public"):
        access = "developer"
    return Artifacts(
        paths=m.strings(parts["paths"], f"{where}:paths", MAX_NESTING) if "paths" in parts else (),
        exclude=m.strings(parts["exclude"], f"{where}:exclude", MAX_NESTING) if "exclude" in parts else (),
        untracked="untracked" in parts and m.boolean(parts["untracked"], f"{where}:untracked"),
        name=m.string(parts["name"], f"{where}:name") if "name" in parts else "",
        when=When(when) if when else When.ON_SUCCESS,
        expire_in=expire,
        expose_as=m.text(parts["expose_as"], f"{where}:expose_as") if "expose_as" in parts else "",
        access=access or "all",
        reports=_reports(parts["reports"], f"{where}:reports", m) if "reports" in parts else (),
    )


def _reports(node: Node, where: str, m: Mistakes) -> tuple[ReportSpec, ...]:
    out = []
    for kind, item in m.mapping(node, where, keywords.REPORTS).items():
        if kind == "coverage_report":
            parts = m.mapping(item, f"{where}:{kind}", ("coverage_format", "path"))
            name = (
                m.choice(parts["coverage_format"], f"{where}:{kind}:coverage_format", ("cobertura", "jacoco"))
                if "coverage_format" in parts
                else ""
            )
            if name == "jacoco":
                m.unsupported(parts["coverage_format"], where, "JaCoCo coverage is not read yet; the file is kept as an artifact")
            if "path" not in parts or not name:
                m.error(item, where, f"{where}:{kind} needs coverage_format and path")
            else:
                out.append(ReportSpec(name, m.strings(parts["path"], f"{where}:{kind}:path")))
            continue
        if kind not in keywords.READ_REPORTS:
            m.unsupported(node.keys[kind], where, f"{where}:{kind} is not read yet; the file is kept as an artifact")
        if isinstance(item.value, dict):
            if kind not in ("dast", "license_management"):
                m.error(item, where, f"{where}:{kind} must be a path or a list of paths, this is {item.kind}")
            continue
        out.append(ReportSpec(kind, m.strings(item, f"{where}:{kind}")))
    return tuple(out)


def caches(node: Node, where: str, m: Mistakes) -> tuple[Cache, ...]:
    if node.value is None:
        return ()
    listed = node.value if isinstance(node.value, list) else [node]
    if len(listed) > 4:
        m.error(node, where, f"a job can have at most 4 caches, these are {len(listed)}")
    return tuple(_cache(item, where, m) for item in listed[:4] if item.value or isinstance(item.value, dict))


def _cache(node: Node, where: str, m: Mistakes) -> Cache:
    parts = m.mapping(node, where, keywords.CACHE)
    key, files = "default", ()  # type: tuple[str, tuple[str, ...]]
    if "key" in parts and isinstance(parts["key"].value, dict):
        key_parts = m.mapping(parts["key"], f"{where}:key", ("files", "files_commits", "prefix"))
        key = m.string(key_parts["prefix"], f"{where}:key:prefix") if "prefix" in key_parts else ""
        listed = key_parts.get("files", key_parts.get("files_commits"))
        if listed is None:
            m.error(parts["key"], where, f"{where}:key needs files")
        else:
            files = m.strings(listed, f"{where}:key:files")
            if not 1 <= len(files) <= 2:
                m.error(listed, where, f"{where}:key:files takes one or two files, these are {len(files)}")
    elif "key" in parts:
        key = m.string(parts["key"], f"{where}:key")
        if "/" in key or key in (".", ".."):
            m.error(parts["key"], where, f"{where}:key can't be {key!r}", "no slash, not '.' or '..'")
    when = m.choice(parts["when"], f"{where}:when", ("on_success", "on_failure", "always")) if "when" in parts else ""
    policy = m.string(parts["policy"], f"{where}:policy") if "policy" in parts else "pull-push"
    if "$" not in policy and policy not in ("pull-push", "pull", "push"):
        m.choice(parts["policy"], f"{where}:policy", ("pull-push", "pull", "push"))
    return Cache(
        key=key,
        key_files=files,
        paths=m.strings(parts["paths"], f"{where}:paths", 2) if "paths" in parts else (),
        untracked="untracked" in parts and m.boolean(parts["untracked"], f"{where}:untracked"),
        policy=policy,
        when=When(when) if when else When.ON_SUCCESS,
        by_commits="key" in parts and isinstance(parts["key"].value, dict) and "files_commits" in parts["key"].value,
        fallback_keys=m.strings(parts["fallback_keys"], f"{where}:fallback_keys") if "fallback_keys" in parts else (),
        unprotect="unprotect" in parts and m.boolean(parts["unprotect"], f"{where}:unprotect"),
    )


def retry(node: Node, where: str, m: Mistakes) -> Retry:
    if not isinstance(node.value, dict):
        return Retry(m.integer(node, where, 0, 2))
    parts = m.mapping(node, where, keywords.RETRY)
    reasons: tuple[str, ...] = ()
    if "when" in parts:
        listed = parts["when"].value if isinstance(parts["when"].value, list) else [parts["when"]]
        reasons = tuple(m.choice(item, f"{where}:when", keywords.RETRY_REASONS) for item in listed)
    codes = _codes(parts["exit_codes"], where, m) if "exit_codes" in parts else ()
    return Retry(m.integer(parts["max"], f"{where}:max", 0, 2) if "max" in parts else 0, () if "always" in reasons else reasons, codes)


def image(node: Node, where: str, m: Mistakes) -> Image | None:
    if node.value is None:
        return None
    if isinstance(node.value, str):
        return Image(node.value, place(node))
    parts = m.mapping(node, where, keywords.IMAGE)
    if "name" not in parts:
        m.error(node, where, f"{where} needs a name")
        return None
    pull, platform, user = _executor_options(parts, where, m)
    entrypoint = m.strings(parts["entrypoint"], f"{where}:entrypoint") if "entrypoint" in parts else None
    return Image(m.text(parts["name"], f"{where}:name"), place(parts["name"]), entrypoint, pull, platform, user)


def _executor_options(parts: dict[str, Node], where: str, m: Mistakes) -> tuple[tuple[str, ...], str, str]:
    """Check what an image or service says to one executor, and how it is pulled; return pull policies, Docker's platform and user."""
    told: dict[str, str] = {}
    for executor, words in (("docker", ("platform", "user")), ("kubernetes", ("user",))):
        if executor in parts:
            for word, node in m.mapping(parts[executor], f"{where}:{executor}", words).items():
                if word not in words:
                    continue
                told |= {word: str(node.value)} if executor == "docker" else {}
                number = executor == "kubernetes" and isinstance(node.value, int) and not isinstance(node.value, bool)
                if not number and not (isinstance(node.value, str) and node.value):
                    m.error(node, where, f"{where}:{executor}:{word} must be a text, this is {'empty' if node.value == '' else node.kind}")
    if "pull_policy" in parts:
        listed = parts["pull_policy"].value if isinstance(parts["pull_policy"].value, list) else [parts["pull_policy"]]
        if not listed:
            m.error(parts["pull_policy"], where, f"{where}:pull_policy is empty", "always, if-not-present or never")
        pull = tuple(m.choice(item, f"{where}:pull_policy", ("always", "if-not-present", "never")) for item in listed)
        return pull, told.get("platform", ""), told.get("user", "")
    return (), told.get("platform", ""), told.get("user", "")


def services(node: Node, where: str, m: Mistakes) -> tuple[Service, ...]:
    if node.value is None:
        return ()
    if not isinstance(node.value, list):
        m.error(node, where, f"{where} must be a list, this is {node.kind}")
        return ()
    out = []
    for item in node.value:
        if isinstance(item.value, dict):
            parts = m.mapping(item, where, keywords.SERVICE)
            pull, platform, user = _executor_options(parts, where, m)
            for word in ("entrypoint", "command"):
                if word in parts and not isinstance(parts[word].value, list):
                    m.error(parts[word], where, f"{where}:{word} must be a list of strings, this is {parts[word].kind}")
            if "name" in parts:
                alias = m.text(parts["alias"], f"{where}:alias") if "alias" in parts else ""
                given = {
                    w: m.strings(parts[w], f"{where}:{w}")
                    for w in ("entrypoint", "command")
                    if w in parts and isinstance(parts[w].value, list)
                }
                own = variables(parts["variables"], f"{where}:variables", m) if "variables" in parts else ()
                name = m.text(parts["name"], f"{where}:name")
                out.append(
                    Service(name, place(parts["name"]), alias, given.get("entrypoint"), given.get("command"), own, pull, platform, user)
                )
            else:
                m.error(item, where, f"{where}: a service needs a name")
        else:
            out.append(Service(m.text(item, where), place(item)))
    return tuple(out)


def environment(node: Node, where: str, m: Mistakes) -> EnvironmentSpec | None:
    if not isinstance(node.value, dict):
        return EnvironmentSpec(m.string(node, where)) if node.value is not None else None
    parts = m.mapping(node, where, keywords.ENVIRONMENT)
    if "name" not in parts:
        m.error(node, where, f"{where} needs a name")
        return None
    if "kubernetes" in parts:
        m.unsupported(node.keys["kubernetes"], where, f"{where}:kubernetes is not supported yet")
    stop_in = None
    if "auto_stop_in" in parts and m.string(parts["auto_stop_in"], f"{where}:auto_stop_in") != "never":
        stop_in = m.span(parts["auto_stop_in"], f"{where}:auto_stop_in")
    return EnvironmentSpec(
        m.string(parts["name"], f"{where}:name"),
        url=m.text(parts["url"], f"{where}:url") if "url" in parts else "",
        action=m.choice(parts["action"], f"{where}:action", ("start", "prepare", "stop", "verify", "access"))
        if "action" in parts
        else "start",
        on_stop=m.text(parts["on_stop"], f"{where}:on_stop") if "on_stop" in parts else "",
        tier=m.choice(parts["deployment_tier"], f"{where}:deployment_tier", ("production", "staging", "testing", "development", "other"))
        if "deployment_tier" in parts
        else "",
        auto_stop_in=stop_in,
    )


def hooks(node: Node, where: str, m: Mistakes) -> tuple[str, ...]:
    """Return the commands that run before the sources are fetched."""
    found = m.mapping(node, where, ("pre_get_sources_script",)).get("pre_get_sources_script")
    return m.strings(found, f"{where}:pre_get_sources_script", MAX_NESTING) if found is not None else ()


AUTO_CANCEL = {"on_new_commit": ("conservative", "interruptible", "none"), "on_job_failure": ("all", "none")}


def auto_cancel(node: Node, m: Mistakes) -> AutoCancel:
    """Read `workflow:auto_cancel`."""
    return AutoCancel(**dict(_auto_cancel(node, m)))


def _auto_cancel(node: Node, m: Mistakes) -> tuple[tuple[str, str], ...]:
    known = m.mapping(node, "workflow:auto_cancel", AUTO_CANCEL) if node.value is not None else {}
    said = {name: m.choice(known[name], f"workflow:auto_cancel:{name}", words) for name, words in AUTO_CANCEL.items() if name in known}
    return tuple((name, word) for name, word in said.items() if word)
