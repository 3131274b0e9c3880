"""HashiCorp Vault and OpenBao over HTTP: the job's id token opens it (auth method jwt), then one read of a key-value engine.

Source: Vault's HTTP API of the JWT auth method and of KV version 1 and 2. Which server, role and path come from the job's variables VAULT_SERVER_URL,
VAULT_AUTH_ROLE, VAULT_AUTH_PATH (default jwt) and VAULT_NAMESPACE, as for GitLab's runner.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from trunkline.model.errors import ConfigError, OutsideError
from trunkline.model.pipelines import Secret
from trunkline.model.variables import expand

SECONDS = 20.0
MOST = 1 << 20  # bytes of an answer


class HashicorpVault:
    """Implements ports.vaults.Vault."""

    def __init__(self) -> None:
        self.sessions: dict[tuple[str, ...], str] = {}

    def read(self, secret: Secret, values: Mapping[str, str], proofs: Mapping[str, str]) -> str:
        """Return a secret's value."""
        url = values.get("VAULT_SERVER_URL", "").rstrip("/")
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(f"secret {secret.name}: VAULT_SERVER_URL says no address of a vault", "set it under variables:")
        path = "/".join(quote(part, safe="") for part in expand(secret.path, values).strip("/").split("/"))
        mount = quote(expand(secret.mount, values).strip("/"))
        where = f"{mount}/data/{path}" if secret.engine == "kv-v2" else f"{mount}/{path}"
        told = self._ask(url, where, values, secret, token=self._session(url, values, self._proof(secret, values, proofs), secret))
        data = told.get("data") or {}
        data = data.get("data") or {} if secret.engine == "kv-v2" else data
        field = expand(secret.field, values)
        if field not in data:
            raise ConfigError(f"secret {secret.name}: {secret.path} has no field {field!r}", f"it has {', '.join(sorted(data)) or 'none'}")
        return data[field] if isinstance(data[field], str) else json.dumps(data[field])

    @staticmethod
    def _proof(secret: Secret, values: Mapping[str, str], proofs: Mapping[str, str]) -> str:
        if secret.token:
            return expand(secret.token, {**values, **proofs})
        if len(proofs) == 1:
            return next(iter(proofs.values()))
        known = ", ".join(proofs) or "none"
        raise ConfigError(
            f"secret {secret.name}: token must say which id token opens the vault (there are: {known})", "token: $VAULT_TOKEN"
        )

    def _session(self, url: str, values: Mapping[str, str], proof: str, secret: Secret) -> str:
        role, path = values.get("VAULT_AUTH_ROLE", ""), values.get("VAULT_AUTH_PATH", "jwt").strip("/")
        key = (url, path, role, proof)
        if key not in self.sessions:
            body = {"jwt": proof, **({"role": role} if role else {})}
            told = self._ask(url, f"auth/{quote(path)}/login", values, secret, body)
            self.sessions[key] = str((told.get("auth") or {}).get("client_token", ""))
        return self.sessions[key]

    @staticmethod
    def _ask(url: str, path: str, values: Mapping[str, str], secret: Secret, body: object = None, token: str = "") -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "X-Vault-Request": "true"}
        if token:
            headers["X-Vault-Token"] = token
        if values.get("VAULT_NAMESPACE"):
            headers["X-Vault-Namespace"] = values["VAULT_NAMESPACE"]
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{url}/v1/{path}", data, headers)  # noqa: S310 - http or https, checked above
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310
                told = json.loads(reply.read(MOST))
        except urllib.error.HTTPError as refusal:
            with refusal:
                try:
                    said = "; ".join(map(str, json.loads(refusal.read(MOST)).get("errors") or ())) or "no reason given"
                except (ValueError, AttributeError):
                    said = "no reason given"
            raise ConfigError(f"secret {secret.name}: the vault refused {path}: {refusal.code} ({said})") from None
        except ValueError:
            raise OutsideError(f"secret {secret.name}: the vault's answer to {path} can't be read") from None
        except OSError as problem:
            raise OutsideError(f"secret {secret.name}: the vault can't be reached: {getattr(problem, 'reason', problem)}") from None
        return told if isinstance(told, dict) else {}
