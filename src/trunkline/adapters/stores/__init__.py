"""Databases behind ports.store."""
