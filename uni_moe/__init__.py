"""Train, retrain, judge and audit Uni-MoE models. Importing this package imports no torch."""

__version__ = "0.1.0"
