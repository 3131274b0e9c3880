"""What a job is given to prove who it is (`id_tokens`), and what it fetches with that (`secrets`)."""

from trunkline.kit.yamltree import Node
from trunkline.model.pipelines import IdToken, Secret
from trunkline.reading import Mistakes

OTHER_VAULTS = ("gcp_secret_manager", "azure_key_vault", "aws_secrets_manager", "gitlab_secrets_manager", "akeyless")


def id_tokens(node: Node, where: str, m: Mistakes) -> tuple[IdToken, ...]:
    """Read `id_tokens:`."""
    found = []
    for name, item in m.mapping(node, where).items():
        aud = m.mapping(item, f"{where}:{name}", ("aud",)).get("aud")
        if aud is None:
            m.error(item, where, f"{where}:{name} must say for whom it is", "aud: https://vault.example.com")
        else:
            found.append(IdToken(name, m.strings(aud, f"{where}:{name}:aud")))
    return tuple(found)


def secrets(node: Node, where: str, m: Mistakes) -> tuple[tuple[Secret, ...], str]:
    """Read `secrets:`; return them, and why the job can't run if one comes from where nobody can fetch it yet."""
    found, cant = [], ""
    for name, item in m.mapping(node, where).items():
        at = f"{where}:{name}"
        parts = m.mapping(item, at, ("vault", "file", "token", *OTHER_VAULTS))
        other = next((word for word in OTHER_VAULTS if word in parts), "")
        if other:
            cant = f"secrets of {other} can't be fetched yet"
            m.unsupported(item.keys[other], where, f"{at}: {cant}", "vault: is understood")
        elif "vault" not in parts:
            m.error(item, where, f"{at} must say where it lies", "vault: path/to/secret/field@engine")
        else:
            engine, mount, path, field = _vault(parts["vault"], f"{at}:vault", m)
            token = m.string(parts["token"], f"{at}:token") if "token" in parts else ""
            is_file = "file" not in parts or m.boolean(parts["file"], f"{at}:file")
            found.append(Secret(name, engine, mount, path, field, token, is_file))
    return tuple(found), cant


def _vault(node: Node, where: str, m: Mistakes) -> tuple[str, str, str, str]:
    """Return engine, mount, path and field; the short form is path/field@mount, of the engine kv-v2."""
    if isinstance(node.value, str):
        whole, _, mount = node.value.partition("@")
        path, _, field = whole.rpartition("/")
        if not path:
            m.error(node, where, f"{where}: {node.value!r} names no path and field", "path/to/secret/field@engine")
        return "kv-v2", mount or "kv-v2", path, field
    parts = m.mapping(node, where, ("engine", "path", "field"))
    for word in ("engine", "path", "field"):
        if word not in parts and isinstance(node.value, dict):
            m.error(node, where, f"{where} must name engine, path and field")
            return "", "", "", ""
    if not parts:
        return "", "", "", ""
    engine = m.mapping(parts["engine"], f"{where}:engine", ("name", "path"))
    name = m.choice(engine["name"], f"{where}:engine:name", ("kv-v1", "kv-v2", "generic")) if "name" in engine else "kv-v2"
    mount = m.string(engine["path"], f"{where}:engine:path") if "path" in engine else name
    return name, mount, m.string(parts["path"], f"{where}:path"), m.string(parts["field"], f"{where}:field")
