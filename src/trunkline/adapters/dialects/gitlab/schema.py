"""A JSON Schema of `.gitlab-ci.yml` out of the dialect's own tables, for editors: they complete and underline; `trunkline lint` says more, and better."""

from collections.abc import Iterable
from typing import Any

from trunkline.adapters.dialects.gitlab import inputs, keywords, parts

TEXT = {"type": ["string", "number", "boolean"]}
LINES: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "array"]}}]}
WHEN = {"enum": ["on_success", "on_failure", "always", "never", "manual", "delayed"]}


def _mapping(names: Iterable[str], known: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {name: (known or {}).get(name, {}) for name in sorted(names)}}


def _or_text(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, schema]}


def schema() -> dict[str, Any]:
    """Return the schema."""
    variables = {
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": ["string", "number", "boolean", "null"]}, _mapping(("value", "expand", "description", "options"))]
        },
    }
    rule = _mapping(
        keywords.RULE,
        {"if": {"type": "string"}, "when": WHEN, "variables": variables, "interruptible": {"type": "boolean"}, "start_in": TEXT},
    )
    rules = {"type": "array", "items": {"anyOf": [rule, {"type": "array"}]}}
    image = _or_text(_mapping(keywords.IMAGE))
    services = {"type": "array", "items": _or_text(_mapping(keywords.SERVICE))}
    artifacts = _mapping(
        keywords.ARTIFACTS, {"reports": _mapping(keywords.REPORTS), "when": {"enum": ["on_success", "on_failure", "always"]}}
    )
    cache_one = _mapping(keywords.CACHE)
    cache = {"anyOf": [cache_one, {"type": "array", "items": cache_one, "maxItems": 4}]}
    retry = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2}, _mapping(keywords.RETRY)]}
    policy = {"anyOf": [LINES, _mapping(keywords.ONLY)]}
    need = _or_text(_mapping(keywords.NEED))
    known = {
        "script": LINES, "before_script": LINES, "after_script": LINES, "variables": variables, "rules": rules, "when": WHEN, "image": image,
        "services": services, "artifacts": artifacts, "cache": cache, "retry": retry, "only": policy, "except": policy, "stage": {"type": "string"},
        "needs": {"type": "array", "items": need}, "environment": _or_text(_mapping(keywords.ENVIRONMENT)), "interruptible": {"type": "boolean"},
        "coverage": {"type": "string", "format": "regex"}, "resource_group": {"type": "string"}, "timeout": TEXT, "start_in": TEXT,
        "hooks": _mapping(("pre_get_sources_script",)), "inherit": _mapping(("default", "variables")), "dependencies": {"type": "array"},
    }  # fmt: skip
    job = _mapping(keywords.JOB, known)
    auto_cancel = _mapping(parts.AUTO_CANCEL, {name: {"enum": list(words)} for name, words in parts.AUTO_CANCEL.items()})
    one_input = {"anyOf": [{"type": "null"}, _mapping(inputs.KEYS, {"type": {"enum": list(inputs.TYPES)}})]}
    top = {
        **{name: known.get(name, {}) for name in keywords.GLOBAL},
        "stages": {"type": "array"},
        "default": _mapping(keywords.DEFAULT, known),
        "workflow": _mapping(keywords.WORKFLOW, {"rules": rules, "name": {"type": "string"}, "auto_cancel": auto_cancel}),
        "spec": _mapping(("inputs", "component"), {"inputs": {"type": "object", "additionalProperties": one_input}}),
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": ".gitlab-ci.yml as Trunkline reads it", "type": "object",
        "properties": dict(sorted(top.items())), "patternProperties": {"^[.]": {}}, "additionalProperties": job,
    }  # fmt: skip
