"""Conversations in the formats that other tools write and read: imported as episodes, exported from the store.

`ratchet import` and `ratchet export` call it. A format is a module with `read` and `write`, listed in `formats`.
It may import every other package of streams.
"""
