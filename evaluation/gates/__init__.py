"""The gates that a candidate must pass before it may serve, one per file.

`daemon/learning/cycle.py` calls `significance.evaluate`; a further gate is a file beside it that is called there too.
Imports `evaluation.rollouts`, `evaluation.statistics` and `streams`.
"""
