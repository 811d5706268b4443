"""Example workspaces of any size: runs, curves, lineage and decisions in honest shapes.

`road` says which artifacts a retraining makes, `history` what ran and what was decided, `curves`
what trainings told; `filling` puts all of it into an index, `folders` and `kept` write what lies
on disk, and `making` does the whole. Nothing is trained: weights are absent.
"""
