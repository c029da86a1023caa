"""The learn role: when a cycle is due, the cycle itself, and what follows from retractions.

Imports `serving`, `registry` and `config` of `daemon`, and the layers below.
"""
