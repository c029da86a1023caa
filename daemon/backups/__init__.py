"""Backups of a home: `creating` writes one while Ratchet runs, `manifest` checks it, `restoring` makes a home of it.

A backup is a folder: `manifest.json`, `settings.json`, the tables of the store in `store/`, the other files in `home/`.
"""
