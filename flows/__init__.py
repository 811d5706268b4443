"""Orchestration only: plans from the graph of dvc.yaml, run by Prefect."""
