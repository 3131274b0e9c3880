"""Vaults: HashiCorp Vault and OpenBao."""
