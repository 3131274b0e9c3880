"""What a job publishes when it has passed: a release, a site."""

from trunkline.kit.yamltree import Node
from trunkline.model.pipelines import AssetLink, PagesSpec, ReleaseSpec
from trunkline.reading import Mistakes


def release(node: Node, where: str, m: Mistakes) -> ReleaseSpec | None:
    """Read `release:`."""
    known = m.mapping(node, where, ("tag_name", "tag_message", "description", "name", "ref", "milestones", "released_at", "assets"))
    if not known:
        return None
    for word in ("tag_name", "description"):
        if word not in known:
            m.error(node, where, f"{where} must have {word}")
    texts = {n: m.string(known[n], f"{where}:{n}") for n in ("tag_name", "tag_message", "description", "name", "ref") if n in known}
    milestones = m.strings(known["milestones"], f"{where}:milestones") if "milestones" in known else ()
    return ReleaseSpec(**texts, milestones=milestones, links=_links(known["assets"], where, m) if "assets" in known else ())


def _links(node: Node, where: str, m: Mistakes) -> tuple[AssetLink, ...]:
    links = m.mapping(node, f"{where}:assets", ("links",)).get("links")
    if links is None or not isinstance(links.value, list) or not links.value:
        m.error(node, where, f"{where}:assets must list links")
        return ()
    found = []
    for link in links.value:
        said = m.mapping(link, f"{where}:assets:links", ("name", "url", "filepath", "link_type"))
        kind = "other"
        if "link_type" in said:
            kind = m.choice(said["link_type"], f"{where}:assets:links:link_type", ("runbook", "package", "image", "other")) or "other"
        if "name" not in said or "url" not in said:
            m.error(link, where, f"{where}:assets:links: a link needs name and url")
            continue
        found.append(AssetLink(m.string(said["name"], where), m.string(said["url"], where), kind))
    return tuple(found)


def pages(name: str, own: dict[str, Node], where: str, m: Mistakes) -> PagesSpec | None:
    """Return what site a job publishes: one named pages does, and each that says so."""
    node = own.get("pages")
    if node is None or isinstance(node.value, bool):
        publishes = name == "pages" if node is None else node.value
        publish = m.text(own["publish"], f"{where}: publish") if "publish" in own else "public"
        return PagesSpec(publish) if publishes else None
    parts = m.mapping(node, f"{where}: pages", ("publish", "path_prefix", "expire_in"))
    expire = None
    if "expire_in" in parts and m.string(parts["expire_in"], f"{where}: pages:expire_in") != "never":
        expire = m.span(parts["expire_in"], f"{where}: pages:expire_in")
    return PagesSpec(
        publish=m.text(parts["publish"], f"{where}: pages:publish") if "publish" in parts else "public",
        prefix=m.string(parts["path_prefix"], f"{where}: pages:path_prefix")
        if "path_prefix" in parts and parts["path_prefix"].value is not None
        else "",
        expire_in=expire,
    )
