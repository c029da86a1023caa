"""Replaces secrets and personal data in an event before it is stored; `redactor.Redactor` is the way in.

Imports the modules at the top of `streams` only.
"""
