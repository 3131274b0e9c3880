"""Small parts fit for any project: they know nothing of pipelines and import only the standard library and PyYAML."""
