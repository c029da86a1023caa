"""The serve role: the gateway, the control API, promotion and rollback, metrics.

Imports `registry` of `daemon`, and `evaluation.attestation`.
"""
