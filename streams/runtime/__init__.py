"""The operating system and HTTP as every process uses them: files, processes, servers, clients, crash points.

Imports `streams.errors` and `streams.settings` only.
"""
