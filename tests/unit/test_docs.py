"""The documents say what is there."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from trunkline.delivery import spec as delivery_file
from trunkline.wiring.settings import _TYPES

ROOT = Path(__file__).parents[2]


def test_the_generated_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert (ROOT / "docs/reference/gitlab-compatibility.md").read_text() == generate.compatibility(), "run python3 dev.py docs"
    assert (ROOT / "docs/reference/github-compatibility.md").read_text() == generate.github(), "run python3 dev.py docs"
    assert (ROOT / "docs/reference/delivery.schema.json").read_text() == generate.delivery_schema(), "run python3 dev.py docs"
    assert (ROOT / "docs/reference/gitlab-ci.schema.json").read_text() == generate.gitlab_schema(), "run python3 dev.py docs"


def test_every_key_of_delivery_yml_is_documented() -> None:
    text = (ROOT / "docs/how-to/deliver.md").read_text()

    def keys(schema: dict[str, Any]) -> set[str]:
        here: dict[str, Any] = schema.get("properties", {})
        return set(here) | {key for inner in here.values() for key in keys(inner) | keys(inner.get("items", {}))}

    environment = delivery_file.schema()["properties"]["environments"]["additionalProperties"]
    assert sorted(key for key in keys(environment) if f"`{key}`" not in text and f"{key}:" not in text) == []


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/how-to/run-a-server.md").read_text()

    assert [name for name in _TYPES if name not in text] == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            broken += [] if (page.parent / target).exists() else [f"{page.name}: {target}"]
    assert broken == []
