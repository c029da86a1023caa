"""Trust: which episodes may be learned from, by trust rules, quotas, the holdout.

Pure; the store and the roles call it.

Imports `ratchet_client` and modules at the top of `streams` only.
"""
