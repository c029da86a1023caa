"""Server-sent events that say their type, as the streams of both APIs do."""

import json

from streams.calls.faces import Body


def event_text(event: Body) -> str:
    """The event as it goes over the wire."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"
