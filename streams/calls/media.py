"""Images, audio and files of any API as the parts that the OpenAI API has for them.

They are kept as references: their address, their identity, or their bytes as a data URL.
"""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from ratchet_client.messages import ContentPart
from streams.calls.json_values import compact

_IMAGE, _AUDIO = "image", "audio"
# The types of parts, and what they hold where it is not said.
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("image", "image_url", "image-url", "input_image"), _IMAGE),
    **dict.fromkeys(("audio", "input_audio", "audio_url", "audio-url"), _AUDIO),
    **dict.fromkeys(("video", "video_url", "video-url"), "video"),
    **dict.fromkeys(("document", "document-url", "file", "input_file", "container_upload"), "file"),
    **dict.fromkeys(("blob", "uri", "binary", "media"), "file"),
    **dict.fromkeys(("inline_data", "inlineData", "file_data", "fileData"), "file"),
}
# Keys below which some APIs put what a part refers to.
_WITHIN = ("source", "image_url", "input_audio", "audio_url", "video_url", "s3Location", "image", "audio", "file")
_ADDRESSES = ("url", "uri", "file_uri", "fileUri", "file_url", "image_url", "audio_url", "video_url")
_BYTES = ("data", "file_data", "content", "bytes", "image", "audio", "file")
_IDENTITIES = ("file_id", "fileId")
_TYPES = ("mime_type", "mimeType", "media_type", "mediaType")
_NAMES = ("filename", "name", "title")
_MAX_DEPTH = 16


def media_part(kind: str, value: Mapping[str, JsonValue]) -> ContentPart | None:
    """The image, audio or file that a part of type `kind` refers to; None where it does not say where that is."""
    if kind not in _KINDS:
        return None
    places = list(_places(kind, value))
    if any(place.get("type") == "text" for place in places):
        return None  # a document that is quoted
    mime = _first(places, _TYPES) or _of_format(kind, _first(places, ("format",)))
    modality = _first(places, ("modality",)) or (mime or "").partition("/")[0]
    if modality not in (_IMAGE, _AUDIO, "video"):
        modality = _KINDS[kind]
    if identity := _first(places, _IDENTITIES):
        return _file({"file_id": identity, "filename": _first(places, _NAMES)})
    address = _first(places, _ADDRESSES) or (found if (found := _first(places, _BYTES)) and _is_address(found) else "")
    data = "" if address else _first(places, _BYTES)
    if not address and not data:
        return None
    if modality == _AUDIO and data:
        form = _first(places, ("format",)) or (mime or "audio/").partition("/")[2]
        return ContentPart.model_validate({"type": "input_audio", "input_audio": {"data": data, "format": form}})
    address = address or f"data:{mime or 'application/octet-stream'};base64,{data}"
    if modality == _IMAGE:
        told = {"url": address} | ({"detail": detail} if (detail := _first(places, ("detail",))) else {})
        return ContentPart.model_validate({"type": "image_url", "image_url": told})
    key = "file_data" if address.startswith("data:") else "file_url"
    return _file({key: address, "filename": _first(places, _NAMES)})


def kept_part(kind: str, value: Mapping[str, JsonValue]) -> ContentPart:
    """A part of a type that is not read, as it came."""
    fields = {name: _shallow(item) for name, item in value.items() if name not in ("type", "text") and item is not None}
    text = value.get("text")
    told = {} if text is None else {"text": text if isinstance(text, str) else compact(text)}
    return ContentPart.model_validate({"type": kind} | told | fields)


def _places(kind: str, value: Mapping[str, JsonValue], depth: int = 0) -> Iterator[Mapping[str, JsonValue]]:
    """The part, and the objects in it that say where something is, the innermost first."""
    for key in (kind, *_WITHIN) if depth < 3 else ():
        if isinstance(inner := value.get(key), dict):
            yield from _places(kind, inner, depth + 1)
    yield value


def _first(places: list[Mapping[str, JsonValue]], names: tuple[str, ...]) -> str:
    return next(
        (found for place in places for name in names if isinstance(found := place.get(name), str) and found), ""
    )


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://", "data:", "s3://", "gs://", "file://"))


def _of_format(kind: str, form: str) -> str:
    return f"{_KINDS[kind]}/{form}" if form and _KINDS[kind] != "file" else ""


def _file(told: Mapping[str, str]) -> ContentPart:
    return ContentPart.model_validate({"type": "file", "file": {key: text for key, text in told.items() if text}})


def _shallow(value: JsonValue, depth: int = 0) -> JsonValue:
    """The value, with JSON texts for what is nested deeper than events may be."""
    if not isinstance(value, dict | list) or not value:
        return value
    if depth == _MAX_DEPTH:
        return compact(value)
    if isinstance(value, list):
        return [_shallow(item, depth + 1) for item in value]
    return {key: _shallow(item, depth + 1) for key, item in value.items()}
