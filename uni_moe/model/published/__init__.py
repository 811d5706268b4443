"""The published checkpoints: their key names, their configuration, and how both map to ours."""
