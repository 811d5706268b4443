"""Whole checkpoints as folders: the published layout in and out, without running their code."""
