"""The counters of the otlp role, as its `/status` shows them. All figures are since the start of the process."""

from ratchet_client.messages import Record


class OtlpStatus(Record):
    """Spans and log records on their way in."""

    accepted: int = 0
    rejected: int = 0
    ignored: int = 0
    refused_requests: int = 0
