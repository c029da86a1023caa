"""Lists of content blocks that a text quotes as JSON, told apart from a text that happens to be a list of objects."""

from collections.abc import Mapping

from pydantic import JsonValue

# The types of blocks, and the keys of which a block of that type has one.
_TEXT = ("text", "content")
_REASONING = ("reasoning", "thinking", "text", "content", "summary", "encrypted_content", "reasoning_content")
_MEDIA = ("source", "image_url", "image", "mime_type", "mimeType", "mediaType", "file_id", "modality")
_KEYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("text", "input_text", "output_text", "summary_text"), _TEXT),
    **dict.fromkeys(("reasoning", "reasoning_text", "reasoning_content", "thinking", "thought"), _REASONING),
    "redacted_thinking": ("data",),
    "refusal": ("refusal",),
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), ("input",)),
    "tool_call_response": ("id", "response", "result"),
    "tool-result": ("toolCallId", "toolName"),
    **dict.fromkeys(("tool_result", "mcp_tool_result"), ("tool_use_id", "tool_call_id")),
    **dict.fromkeys(("web_search_tool_result", "web_fetch_tool_result"), ("tool_use_id",)),
    **dict.fromkeys(("code_execution_tool_result", "bash_code_execution_tool_result"), ("tool_use_id",)),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), ("output", "call_id")),
    **dict.fromkeys(("image", "audio", "video", "document", "file", "blob", "uri", "media"), _MEDIA),
    **dict.fromkeys(("image_url", "input_image"), ("image_url", "file_id")),
    **dict.fromkeys(("input_audio", "audio_url"), ("input_audio", "audio_url")),
    **dict.fromkeys(("input_file", "container_upload"), ("file_id", "file_data", "file_url")),
    "search_result": ("content",),
    "resource": ("resource",),
    "resource_link": ("uri",),
}
CALLS = frozenset({"tool_call", "tool_use", "tool-call", "function_call", "custom_tool_call"})
_NAMED = CALLS | {"server_tool_use", "mcp_tool_use"}
_FUNCTIONS = ("function_call", "functionCall", "toolUse", "function")
# Parts of Gemini and of Bedrock's Converse have their type as their key, and these keys within.
_UNTYPED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("function_call", "functionCall", "toolUse"), ("name",)),
    **dict.fromkeys(("function_response", "functionResponse"), ("name", "response")),
    "toolResult": ("toolUseId", "content"),
    "reasoningContent": ("reasoningText", "redactedContent"),
    **dict.fromkeys(("image", "document", "video"), ("source",)),
    "cachePoint": ("type",),
}


def is_blocks(value: JsonValue) -> bool:
    """Return whether the value is a list of parts, each of a known type and with what such a part has."""
    if not isinstance(value, list) or not value:
        return False
    # Objects with nothing but a text may be anybody's.
    return all(_is_block(item) for item in value) and any(not _is_bare_text(item) for item in value)


def _is_block(item: JsonValue) -> bool:
    if not isinstance(item, dict):
        return False
    kind = item.get("type")
    if kind is None:
        return "type" not in item and (_is_bare_text(item) or _is_untyped(item))
    if not isinstance(kind, str):
        return False
    if kind in _NAMED and not _has_name(item):
        return False
    if kind in ("image", "document", "video", "audio", "file") and isinstance(item.get("source", {}), str):
        return False  # the origin of something, not its bytes
    return kind in CALLS - _KEYS.keys() or any(key in item for key in _KEYS.get(kind, ()))


def _has_name(item: Mapping[str, JsonValue]) -> bool:
    inner = [found for key in _FUNCTIONS if isinstance(found := item.get(key), dict)]
    return any(isinstance(found.get(key), str) for found in (item, *inner) for key in ("name", "toolName"))


def _is_bare_text(item: JsonValue) -> bool:
    return isinstance(item, dict) and list(item) == ["text"] and isinstance(item["text"], str)


def _is_untyped(item: Mapping[str, JsonValue]) -> bool:
    if item.get("thought") is True:
        return "text" in item
    return any(
        isinstance(inner := item.get(key), dict) and any(name in inner for name in names)
        for key, names in _UNTYPED.items()
    )
