"""Judgement: generated answers, scores with intervals, baselines, routing, a report."""
