"""What GitLab does before it looks at any job: includes laid over one another, `extends`, `!reference`.

Order as GitLab's: the included files merge deeply in their order, the including file on top; then `extends`; then `!reference`.
"""

from trunkline.kit.words import did_you_mean
from trunkline.kit.yamltree import Node
from trunkline.reading import Mistakes

MAX_EXTENDS = 11
MAX_REFERENCES = 10


def overlay(base: Node, over: Node) -> Node:
    """Merge two mappings deeply; where both have a key that is not a mapping twice, `over` wins."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    values, keys = dict(base.value), dict(base.keys)
    for name, node in over.value.items():
        values[name] = overlay(values[name], node) if name in values else node
        keys[name] = over.keys.get(name, node)
    return Node(values, over.line, over.column, over.width, file=over.file, keys=keys)


class Extender:
    """Resolves `extends` for each job once."""

    def __init__(self, document: dict[str, Node], mistakes: Mistakes) -> None:
        self.document, self.mistakes = document, mistakes
        self.done: dict[str, Node] = {}
        self.depth: dict[str, int] = {}

    def extended(self, name: str, path: tuple[str, ...] = ()) -> Node:
        """Return the job with what it extends merged below it."""
        if name in self.done:
            return self.done[name]
        node = self.document[name]
        if not isinstance(node.value, dict) or "extends" not in node.value:
            self.done[name], self.depth[name] = node, 0
            return node
        parents = node.value["extends"]
        listed = parents.value if isinstance(parents.value, list) else [parents]
        merged: Node | None = None
        depth = 0
        for parent in listed:
            other = parent.value
            if not isinstance(other, str):
                self.mistakes.error(parent, "extends", f"extends takes the name of a job or a list of names, this is {parent.kind}")
                continue
            if other not in self.document:
                self.mistakes.error(
                    parent, "extends", f'job "{name}" extends "{other}", but no job has that name', did_you_mean(other, self.document)
                )
                continue
            if other == name or other in path:
                chain = " -> ".join((*path, name, other))
                self.mistakes.error(parent, "extends", f"circular extends: {chain}")
                continue
            base = self.extended(other, (*path, name))
            depth = max(depth, self.depth.get(other, 0) + 1)
            if not isinstance(base.value, dict):
                self.mistakes.error(parent, "extends", f'"{other}" is {base.kind}; only a job can be extended')
                continue
            merged = base if merged is None else overlay(merged, base)
        if depth >= MAX_EXTENDS:
            self.mistakes.error(parents, "extends", f"extends is nested more than {MAX_EXTENDS} levels deep")
        result = overlay(merged, node) if merged is not None else node
        assert isinstance(result.value, dict)
        values = {k: v for k, v in result.value.items() if k != "extends"}
        result = Node(values, node.line, node.column, file=node.file, keys=result.keys)
        self.done[name], self.depth[name] = result, depth
        return result


class Referrer:
    """Replaces `!reference [job, key, ...]` by what stands there; a list inside a list of commands stays nested, as in GitLab."""

    def __init__(self, document: dict[str, Node], mistakes: Mistakes) -> None:
        self.document, self.mistakes = document, mistakes

    def resolved(self, node: Node, depth: int = 0) -> Node:
        """Return the node with every reference in it replaced."""
        if node.tag == "!reference":
            return self._target(node, depth)
        if isinstance(node.value, list):
            items = [self.resolved(child, depth) for child in node.value]
            return node if all(a is b for a, b in zip(items, node.value, strict=True)) else _like(node, items)
        if isinstance(node.value, dict):
            changed = {k: self.resolved(v, depth) for k, v in node.value.items()}
            return node if all(changed[k] is v for k, v in node.value.items()) else _like(node, changed)
        if node.tag:
            self.mistakes.error(node, "tag", f"unknown YAML tag {node.tag}", did_you_mean(node.tag, ["!reference"]))
        return node

    def _target(self, node: Node, depth: int) -> Node:
        path = [str(n.value) for n in node.value] if isinstance(node.value, list) else []
        said = "!reference [" + ", ".join(path) + "]"
        if depth >= MAX_REFERENCES:
            self.mistakes.error(node, "reference", f"{said} is nested more than {MAX_REFERENCES} levels deep, or refers to itself")
            return _like(node, None)
        if not path:
            self.mistakes.error(node, "reference", "!reference takes a list: [job, keyword]")
            return _like(node, None)
        at: dict[str, Node] = self.document
        for i, name in enumerate(path):
            if name not in at:
                self.mistakes.error(node, "reference", f'{said}: there is no "{name}"', did_you_mean(name, at))
                return _like(node, None)
            found = at[name]
            if i + 1 < len(path):
                if not isinstance(found.value, dict):
                    self.mistakes.error(node, "reference", f'{said}: "{name}" is {found.kind}, it has no "{path[i + 1]}"')
                    return _like(node, None)
                at = found.value
        return self.resolved(found, depth + 1)


def _like(node: Node, value: "list[Node] | dict[str, Node] | None") -> Node:
    return Node(value, node.line, node.column, node.width, file=node.file, keys=node.keys)
