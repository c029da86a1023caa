"""Rationales for trusted actions, as the objective `reflection` learns them: written, filtered and kept in a file.

`states` finds where one can be written, `places` where one can stand in a reply, `grounded` composes one, `prompts`
asks a model for one, `filters` says why one is dropped, `records` is the file. `evaluation/reflecting.py` runs it.
"""
