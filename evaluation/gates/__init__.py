"""The gates that a candidate must pass before it may serve, one per file.

`significance.evaluate` is what the learner calls; a further gate is a file beside it that the learner calls next.
Imports `evaluation.rollouts`, `evaluation.statistics` and `streams`.
"""
