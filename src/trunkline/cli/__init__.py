"""ROOF what people type: one file per command. `main` finds the file by the first word, so that a command loads only what it needs."""
