"""Notations for pipelines: each reads its own files and lowers them to `model.pipelines.Pipeline`."""
