"""Contract suites: subclass one, give it the adapter as a fixture, and pytest checks what the port's docstrings promise."""
