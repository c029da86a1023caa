"""Reads the inference server's errors, which are passed on as they are but for two kinds."""

import json
import re
from typing import Any

_MISSING = re.compile(r"not[ _](be )?found|does not exist|not (been )?loaded|unknown|no such", re.IGNORECASE)


def has_lost(served: str, body: bytes) -> bool:
    """Return whether a 404 says that the model `served` is unknown, and not that something else is.

    The server was then restarted and has the adapter no more; it is loaded again within seconds.

    >>> has_lost("r-1", b'{"error": {"message": "The model `r-1` does not exist.", "code": 404}}')
    True
    >>> has_lost("r-1", b'{"error": {"message": "response resp_1 not found", "code": "not_found"}}')
    False
    """
    error = _object(body)
    inner = error.get("error")
    error = inner if isinstance(inner, dict) else error
    if error.get("code") == "model_not_found":
        return True
    # vLLM's words, Ollama's and Anthropic's: `model: NAME`.
    message = f"{error.get('message') or inner or error.get('detail')}"
    names_it = re.search(rf"(?<![\w.-]){re.escape(served)}(?![\w-])", message) and "model" in message.lower()
    return bool(names_it) and (bool(_MISSING.search(message)) or error.get("type") == "not_found_error")


def is_json_object(body: bytes) -> bool:
    """Return whether an error has a body that a program can read, which is then passed on as it is."""
    return bool(_object(body))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
