"""The record role: from a record of the log to a row of the store. `pipeline.py` has the order of the stages.

Imports `store`, `redaction`, `trust`, `kafka`, `runtime`.
"""
