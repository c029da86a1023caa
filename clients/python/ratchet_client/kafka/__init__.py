"""Connections to the cluster, their TLS and SASL, remedies for its errors, and signatures of records.

Imports `errors` and `settings` only.
"""
