"""Which adapters there are and what became of them: refs, the lifecycle, the audit log.

Imports `evaluation` for verdicts, and nothing else of `daemon`.
"""
