"""Forges, each in a file: how their hooks are signed and shaped, and how a commit's status is told. Sources: their REST and webhook documentation."""
