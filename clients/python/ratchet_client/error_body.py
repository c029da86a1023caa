"""The body of an error over HTTP, which is OpenAI's, as clients read it."""

import json

_LONGEST_FOREIGN_TEXT = 500


def error_message(body: bytes) -> str:
    """The message in the body of an error, which is OpenAI's, or the beginning of whatever else a server answered.

    >>> error_message(b'{"error": {"message": "not here"}}'), error_message(b"Bad Gateway")
    ('not here', 'Bad Gateway')
    """
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:_LONGEST_FOREIGN_TEXT]
