"""Vault: where secrets lie that are not this server's."""

from collections.abc import Mapping
from typing import Protocol

from trunkline.model.pipelines import Secret


class Vault(Protocol):
    """Fetches secrets for one job, with what that job can prove."""

    def read(self, secret: Secret, values: Mapping[str, str], proofs: Mapping[str, str]) -> str:
        """Return a secret's value. `values` are the job's variables, `proofs` its id tokens by name. Raises a TrunklineError that says what the
        vault refused, never the secret."""
        ...
