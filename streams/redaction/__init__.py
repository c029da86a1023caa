"""Secrets and personal data leave an event before it is stored; the record role calls `redactor.Redactor`."""
