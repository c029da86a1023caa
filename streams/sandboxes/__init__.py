"""Processes that hold environments, and what isolates them from the machine; `pool.SandboxPool` is the way in.

Imports `environments` and `runtime`. `isolation/` has one file per tier.
"""
