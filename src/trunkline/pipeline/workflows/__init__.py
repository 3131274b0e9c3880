"""Workflows whose jobs are lists of steps: what starts them, what their expressions see, and when which job runs. Pure."""
