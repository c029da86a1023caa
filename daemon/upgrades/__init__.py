"""Upgrades of a home: `formats` says which versions its files have, `upgrading` brings them to this version's.

`ratchet upgrade` calls both; `ratchet run` asks `upgrading` whether one was begun and is not over.
"""
