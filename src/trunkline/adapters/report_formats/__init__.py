"""Files that tools leave, read into plain numbers and findings: one module a format, each with `read(data) -> dict`."""
