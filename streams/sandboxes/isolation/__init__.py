"""Isolation of sandbox processes: what they can read, write, reach and use up. Called by the pool of sandboxes."""
