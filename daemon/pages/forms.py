"""Forms that browsers send: read within limits, and only from a page of the same session."""

from urllib.parse import parse_qs

from starlette.requests import Request

from daemon.pages.parts import Parts, visit_of
from streams.access.pages import is_same_origin
from streams.errors import RequestRefusedError

LARGEST_FORM = 64 * 1024
_MOST_FIELDS = 20


async def read_form(request: Request, parts: Parts) -> dict[str, str]:
    """The fields of a form, the last of each name. Raises `RequestRefusedError` for one that no page of ours sent."""
    origin = request.headers.get("origin", "")
    if not origin or not is_same_origin(origin, request.headers.get("host", "")):
        raise RequestRefusedError(
            403, "foreign_origin", "this form did not come from a page of this server: open the page here and try again"
        )
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise RequestRefusedError(413, "form_too_large", f"the form is larger than {LARGEST_FORM} bytes: say less")
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise RequestRefusedError(400, "not_a_form", f"this is not a form: {error}") from error
    fields = {name: values[-1] for name, values in found.items()}
    if not parts.sessions.is_csrf(visit_of(request).session, fields.pop("csrf", "")):
        raise RequestRefusedError(
            403, "csrf", "the form is of another session, or Ratchet was started again since: reload the page and retry"
        )
    return fields
