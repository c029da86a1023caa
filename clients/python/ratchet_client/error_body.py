"""The body of an error over HTTP, which is OpenAI's, as clients read it."""

import json

_LONGEST = 500


def error_message(body: bytes) -> str:
    """The message in the body of an error, which is OpenAI's, or whatever else a server answered.

    It has 500 characters at most, and escapes for those that would end or hide a line of a log.

    >>> error_message(b'{"error": {"message": "not here"}}'), error_message(b"Bad Gateway")
    ('not here', 'Bad Gateway')
    """
    try:
        said = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = body.decode(errors="replace")
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in said[:_LONGEST])
