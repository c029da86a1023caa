"""Environments that alternatives run in: the interface `Environment` and one adapter per simulator.

To add one, satisfy the protocols of `environment.py`, register the class under the entry-point group
`ratchet.environments`, and run `ratchet environment check NAME`. Imports `runtime` only.
"""
