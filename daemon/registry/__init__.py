"""The registry of adapters: refs, the lifecycle, the audit log.

Imports `evaluation` for verdicts, and nothing else of `daemon`.
"""
