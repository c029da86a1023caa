"""Intake for agents that do not speak Ratchet's schema: OpenTelemetry traces and logs become the same events."""
