"""`ratchet demo`: the main job on embedded defaults, and the report of it.

Imports all of `daemon` but `commands`.
"""
