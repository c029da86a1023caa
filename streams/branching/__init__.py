"""The branch role: restores the states of an episode in a sandbox and runs alternative actions there.

Imports `sandboxes`, `environments`, `policy`, `kafka`. `selectors/` decides where branches are spent.
"""
