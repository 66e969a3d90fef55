"""Checkpoint folders: what is in them. The standard library alone."""
