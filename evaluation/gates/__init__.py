"""What a candidate must show before it may serve; one gate per file.

Imports `evaluation.rollouts`, `evaluation.statistics` and `streams`.
"""
