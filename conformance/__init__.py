"""Scores Trunkline on cases that others wrote; see score.py. The cases lie outside the repository."""
