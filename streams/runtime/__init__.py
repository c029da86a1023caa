"""What every process needs of its operating system: files, processes, HTTP servers, crash points.

Imports `streams.errors` only.
"""
