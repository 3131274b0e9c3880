"""What starts a workflow: everything under `on`."""

import re

from trunkline.adapters.dialects.github import words
from trunkline.adapters.dialects.github.checked import ID, Checked, has_expression
from trunkline.kit.record import record
from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.model import filters
from trunkline.reading import Mistakes

_CRON = re.compile(r"[0-9A-Za-z*/,@ \t-]+")


@record
class InputRead:
    """An input that a workflow takes when it is called."""

    name: str
    kind: str
    is_required: bool
    has_default: bool


class EventReader:
    """Reads `on`; what a workflow takes when it is called is in `inputs` and `secrets` (with whether they must be given) then."""

    def __init__(self, m: Mistakes, c: Checked) -> None:
        self.m, self.c = m, c
        self.inputs: list[InputRead] = []
        self.secrets: list[tuple[str, bool]] = []

    def read(self, node: Node) -> tuple[str, ...]:
        """Return the names of the events, each with its settings checked."""
        m = self.m
        if isinstance(node.value, str):
            if node.value == "schedule":
                m.error(node, "on", "schedule needs its cron lines", "on: {schedule: [{cron: '30 2 * * *'}]}")
            return (self.event(node, node.value),)
        if isinstance(node.value, list):
            if not node.value:
                m.error(node, "on", "on names no event")
            return tuple(self.event(item, m.text(item, "on")) for item in node.value)
        found = m.mapping(node, "on")
        if not found and isinstance(node.value, dict):
            m.error(node, "on", "on names no event")
        for name, item in found.items():
            self.event(node.keys[name], name)
            if name in words.EVENTS:
                self.settings(name, item)
        return tuple(found)

    def event(self, node: Node, name: str) -> str:
        if name and name not in words.EVENTS:
            self.m.error(node, "on", f"there is no event {name!r}", did_you_mean(name, words.EVENTS))
        return name

    def settings(self, name: str, node: Node) -> None:
        m, c = self.m, self.c
        where = f"on.{name}"
        if name == "schedule":
            self.schedule(node)
            return
        if node.value is None:
            return
        types, known = words.EVENTS[name]
        found = m.mapping(node, where, (*known, *(("types",) if types is not None else ())))
        if "types" in found:
            listed = found["types"].value
            for given in listed if isinstance(listed, list) else [found["types"]]:
                self._type(given, name, types)
        for one, other in (words.BRANCHES, words.TAGS, words.PATHS):
            if one in found and other in found:
                m.note(
                    node.keys[other],
                    where,
                    f"{where} has both {one} and {other}: GitHub starts no run then",
                    f"say with ! in {one} what is left out",
                )
        for word in ("branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore"):
            if word in found:
                self.patterns(found[word], f"{where}.{word}")
        for word in ("workflows", "names", "versions"):
            if word in found:
                c.texts(found[word], f"{where}.{word}")
        if "inputs" in found and found["inputs"].value is not None:
            for input_, item in c.mapping(found["inputs"], f"{where}.inputs").items():
                self.input(item, found["inputs"].keys[input_], f"{where}.inputs.{input_}", name == "workflow_call")
        if "secrets" in found and found["secrets"].value is not None:
            for secret, item in c.mapping(found["secrets"], f"{where}.secrets").items():
                parts = m.mapping(item, f"{where}.secrets.{secret}", ("description", "required")) if item.value is not None else {}
                if "required" in parts:
                    c.flag(parts["required"], f"{where}.secrets.{secret}.required", "call.default")
                self.secrets.append((secret, "required" in parts and parts["required"].value is True))
        if "outputs" in found and found["outputs"].value is not None:
            for output, item in c.mapping(found["outputs"], f"{where}.outputs").items():
                parts = m.mapping(item, f"{where}.outputs.{output}", ("description", "value"))
                if "value" not in parts:
                    m.error(item, where, f"{where}.outputs.{output} has no value", "value: ${{ jobs.JOB.outputs.NAME }}")
                else:
                    c.text(parts["value"], f"{where}.outputs.{output}.value", "call.output")

    def _type(self, node: Node, name: str, types: tuple[str, ...] | None) -> None:
        said = self.m.text(node, f"on.{name}.types")
        if types and said and said not in types:
            self.m.error(
                node, f"on.{name}", f"on.{name}.types: there is no activity {said!r}", did_you_mean(said, types) or ", ".join(types)
            )

    def patterns(self, node: Node, where: str) -> None:
        listed = node.value if isinstance(node.value, list) else [node]
        if not listed or node.value is None:
            self.m.error(node, where, f"{where} lists no pattern")
            return
        for item in listed:
            text = self.c.text(item, where, needed=True)
            plain = text[1:] if text.startswith("!") else text
            try:
                filters.expression(plain)
            except ValueError as wrong:
                self.m.error(item, where, f"{where}: {text!r} is no pattern: {wrong}")
            if text.startswith("!") and where.endswith("-ignore"):
                self.m.error(item, where, f"{where}: patterns with ! do not go with -ignore", "use the list without -ignore")

    def schedule(self, node: Node) -> None:
        m = self.m
        if not isinstance(node.value, list) or not node.value:
            m.error(node, "on.schedule", f"on.schedule must be a list of cron lines, this is {node.kind}", "- cron: '30 2 * * *'")
            return
        for item in node.value:
            parts = m.mapping(item, "on.schedule", ("cron", "timezone"))
            if "cron" not in parts:
                if isinstance(item.value, dict):
                    m.error(item, "on.schedule", "on.schedule: an entry has no cron", "- cron: '30 2 * * *'")
                continue
            if "timezone" in parts:
                zone = m.text(parts["timezone"], "on.schedule.timezone")
                if zone and not _is_zone(zone):
                    m.error(
                        parts["timezone"],
                        "on.schedule",
                        f"on.schedule.timezone: there is no time zone {zone!r}",
                        "for example Europe/Berlin",
                    )
            text = m.text(parts["cron"], "on.schedule.cron")
            fields = text.split()
            if text and (len(fields) != 5 or not _CRON.fullmatch(text)):
                m.error(parts["cron"], "on.schedule", f"on.schedule.cron: {text!r} is no cron line", "minute hour day month weekday")

    def input(self, node: Node, key: Node, where: str, is_call: bool) -> None:
        m, c = self.m, self.c
        if not ID.fullmatch(str(key.value)):
            m.error(key, where, f"{where}: an input's name begins with a letter or _ and has letters, digits, _ and -")
        if node.value is None:
            if is_call:
                m.error(key, where, f"{where} has no type", "type: string, boolean or number")
            return
        parts = m.mapping(node, where, ("type", "description", "required", "default", "options", "deprecationMessage"))
        types = ("string", "boolean", "number") if is_call else words.INPUT_TYPES
        kind = m.choice(parts["type"], f"{where}.type", types) if "type" in parts else "" if is_call else "string"
        if is_call and "type" not in parts and isinstance(node.value, dict):
            m.error(node, where, f"{where} has no type", "type: string, boolean or number")
        if "required" in parts:
            c.flag(parts["required"], f"{where}.required", "call.default")
        if is_call:
            self.inputs.append(InputRead(str(key.value), kind, "required" in parts and parts["required"].value is True, "default" in parts))
        options = parts.get("options")
        if kind == "choice" and (options is None or not isinstance(options.value, list) or not options.value):
            m.error(node, where, f"{where} is a choice without options", "options: [one, two]")
        default = parts.get("default")
        if default is None or default.value is None:
            return
        if has_expression(default):
            if is_call:
                c.expression(default, f"{where}.default", "call.default")
            return
        fits = {
            "boolean": isinstance(default.value, bool),
            "number": isinstance(default.value, (int, float)) and not isinstance(default.value, bool),
        }.get(kind, not isinstance(default.value, (dict, list)))
        if kind == "string" and not is_call:
            fits = isinstance(default.value, str)
        if not fits:
            m.error(default, where, f"{where}.default must be a {kind}, this is {default.kind}")
        listed = [o.value for o in options.value] if options is not None and isinstance(options.value, list) else []
        if kind == "choice" and listed and str(default.value) not in [str(o) for o in listed]:
            m.error(default, where, f"{where}.default {default.value!r} is not among its options", ", ".join(str(o) for o in listed))


def _is_zone(name: str) -> bool:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
