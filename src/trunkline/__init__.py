"""Trunkline: from `git push` through tests to a watched production, and back again when it has to."""

__version__ = "0.1.0"
