"""The top layer: the processes, the command line, and what operators touch.

Imports all other layers. `cli.py` is its table of contents.
"""
