"""The operating system and HTTP as every process uses them: files, processes, servers, clients.

Imports `streams.errors` and `ratchet_client` only.
"""
