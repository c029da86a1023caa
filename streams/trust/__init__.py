"""Trust: which episodes may be learned from, by trust rules, quotas, the holdout.

Pure; the store and the roles call it.

Imports `streams.events` and other modules at the top of `streams` only.
"""
