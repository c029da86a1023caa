"""The assemble role: OpenTelemetry spans and captured calls become events.

It may import the telemetry's records and dialects, captured calls and what is below them.
"""
