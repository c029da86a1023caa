"""The otlp role: OpenTelemetry traces and logs, from agents that do not speak Ratchet's schema, become events.

Imports `kafka` and `runtime`. `dialects/` has one file per instrumentation.
"""
