"""Ways to isolate a job. Each implements ports.executor."""
