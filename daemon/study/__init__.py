"""Studies: arms of training compared on the same demonstrations and held-out tasks, cell by cell.

`ratchet study` runs them. May import everything below `commands` and `demo` but what serves production.
"""
