"""What a job starts elsewhere (`trigger:`), and whose artifacts it takes from there (`needs:project`, `needs:pipeline`)."""

import json
import re

from trunkline.kit.yamltree import Node
from trunkline.model.pipelines import FarNeed, Generated, Trigger
from trunkline.reading import Mistakes, place

MAX_FILES = 3
# What a job with trigger can't have, because nothing of it runs on a runner.
NEEDS_A_RUNNER = frozenset(
    [
        "after_script",
        "artifacts",
        "before_script",
        "cache",
        "coverage",
        "dependencies",
        "hooks",
        "id_tokens",
        "image",
        "pages",
        "release",
        "retry",
        "run",
        "script",
        "secrets",
        "services",
        "tags",
        "timeout",
    ]
)


def trigger(node: Node, where: str, m: Mistakes) -> Trigger | None:
    """Read `trigger:`; a text names the project."""
    if not node.value:
        m.error(node, where, f"{where} is empty", "name a project, or say include")
        return None
    if isinstance(node.value, str):
        return Trigger(project=node.value)
    known = m.mapping(node, where, ("project", "branch", "strategy", "include", "forward", "inputs"))
    if not ("project" in known) ^ ("include" in known):
        m.error(node, where, f"{where} needs either project or include")
    strategy = m.choice(known["strategy"], f"{where}:strategy", ("depend", "mirror")) if "strategy" in known else ""
    forward = m.mapping(known["forward"], f"{where}:forward", ("yaml_variables", "pipeline_variables")) if "forward" in known else {}
    text, generated = _included(known["include"], f"{where}:include", m) if "include" in known else ("", ())
    given = m.mapping(known["inputs"], f"{where}:inputs") if "inputs" in known else {}
    return Trigger(
        project=m.text(known["project"], f"{where}:project") if "project" in known else "",
        branch=m.string(known["branch"], f"{where}:branch") if "branch" in known else "",
        text=text,
        generated=generated,
        strategy=strategy,
        forward_yaml="yaml_variables" not in forward or m.boolean(forward["yaml_variables"], f"{where}:forward:yaml_variables"),
        forward_pipeline="pipeline_variables" in forward
        and m.boolean(forward["pipeline_variables"], f"{where}:forward:pipeline_variables"),
        inputs=tuple((name, json.dumps(value.plain())) for name, value in given.items()),
    )


def _included(node: Node, where: str, m: Mistakes) -> tuple[str, tuple[Generated, ...]]:
    """Return the text of a pipeline file that includes what is listed, on the line where that stands; and which files jobs generate."""
    listed = node.value if isinstance(node.value, list) else [node]
    if len(listed) > MAX_FILES:
        m.error(node, where, f"{where} lists {len(listed)} files; GitLab allows {MAX_FILES}")
    out: list[object] = []
    generated: list[Generated] = []
    for item in listed:
        if not isinstance(item.value, dict):
            out.append(m.text(item, where))
            continue
        words = ("local", "project", "file", "ref", "template", "artifact", "job", "component", "remote", "inputs", "rules", "integrity")
        asked = m.mapping(item, where, words)
        if "project" in asked and "file" not in asked:
            m.error(item, where, f"{where} of a project must name the file")
        if ("artifact" in asked) != ("job" in asked):
            m.error(item, where, f"{where} of an artifact names both artifact and job")
            continue
        plain = {word: value.plain() for word, value in asked.items()}
        if "artifact" in asked:
            job, path = m.text(asked["job"], f"{where}:job"), m.text(asked["artifact"], f"{where}:artifact")
            name = re.sub(r"[*$]", "_", f"artifacts/{job}/{path}") + ("" if path.endswith((".yml", ".yaml")) else ".yml")
            generated.append(Generated(job, path, name))
            plain = {"local": name, **{word: plain[word] for word in ("inputs", "rules") if word in plain}}
        out.append(plain)
    return "\n" * (node.line - 1) + json.dumps({"include": out}), tuple(generated)


def far_needs(node: Node, where: str, m: Mistakes) -> tuple[FarNeed, ...]:
    """Read those entries of `needs` that name a job of another run."""
    found: list[FarNeed] = []
    for item in node.value if isinstance(node.value, list) else ():
        if isinstance(item.value, list):
            found += far_needs(item, where, m)
        if not isinstance(item.value, dict) or not ({"pipeline", "project"} & item.value.keys()):
            continue
        said = item.value
        word = "pipeline" if "pipeline" in said else "project"
        if "job" not in said:
            m.unsupported(item.keys[word], where, f"{where}:{word} without a job is passed over: no status is mirrored")
            continue
        if word == "project" and "ref" not in said:
            m.error(item, where, f"{where}:project must name job and ref", "ref: main")
            continue
        found.append(
            FarNeed(
                job=m.text(said["job"], f"{where}:job"),
                project=m.text(said["project"], f"{where}:project") if "project" in said else "",
                ref=m.string(said["ref"], f"{where}:ref") if "ref" in said else "",
                pipeline=m.string(said["pipeline"], f"{where}:pipeline") if "pipeline" in said else "",
                artifacts="artifacts" not in said or m.boolean(said["artifacts"], f"{where}:artifacts"),
                place=place(said["job"]),
            )
        )
    return tuple(found)
