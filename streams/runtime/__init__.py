"""What every process needs of its operating system and of HTTP: files, processes, servers, clients, crash points.

Imports `streams.errors` and `streams.settings` only.
"""
