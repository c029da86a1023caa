"""Parameters of the OpenAI API and of vLLM that are not served, with the values that they are taken with.

Clients send many parameters at neutral values, or such as change no reply. Any other value is refused, since a caller
would otherwise believe that it had an effect. `schemas.py` has what is served.
"""

import json
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from streams.settings import FrozenModel


def neutral(*values: JsonValue) -> AfterValidator:
    """Takes `values` alone, the ones that change nothing, and null, which is the same as leaving the parameter out."""

    def check(value: JsonValue) -> JsonValue:
        # In Python False is 0, but not in JSON.
        if any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in (None, *values)):
            return value
        told = ", ".join(json.dumps(each) for each in values) or "null"
        raise PydanticCustomError("not_served", "not served; leave it out or send {told}", {"told": told})

    return AfterValidator(check)


Zero: TypeAlias = Annotated[JsonValue, neutral(0)]
One: TypeAlias = Annotated[JsonValue, neutral(1)]
No: TypeAlias = Annotated[JsonValue, neutral(False)]
Yes: TypeAlias = Annotated[JsonValue, neutral(True)]
EmptyList: TypeAlias = Annotated[JsonValue, neutral([])]
EmptyObject: TypeAlias = Annotated[JsonValue, neutral({})]
Null: TypeAlias = Annotated[JsonValue, neutral()]


def without_nulls(value: Any) -> Any:
    """The fields of an object that are not null: to every API it is the same as leaving them out."""
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


class Unserved(FrozenModel):
    """Parameters of both endpoints."""

    # They tell the server of OpenAI about the caller, storage and cost. No reply depends on them.
    user: str | None = None
    metadata: dict[str, JsonValue] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, JsonValue] | None = None
    # vLLM's.
    request_id: str | None = None
    cache_salt: str | None = None

    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: EmptyObject = None
    best_of: One = None
    # vLLM's.
    top_k: Annotated[JsonValue, neutral(0, -1)] = None
    min_p: Zero = None
    repetition_penalty: One = None
    length_penalty: One = None
    min_tokens: Zero = None
    priority: Zero = None
    ignore_eos: No = None
    use_beam_search: No = None
    include_stop_str_in_output: No = None
    return_tokens_as_token_ids: No = None
    skip_special_tokens: Yes = None
    spaces_between_special_tokens: Yes = None
    stop_token_ids: EmptyList = None
    bad_words: EmptyList = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class UnservedInChat(Unserved):
    """Parameters of `POST /v1/chat/completions`."""

    # A guess at the reply, to have it sooner.
    prediction: dict[str, JsonValue] | None = None
    # Without tools they change nothing.
    parallel_tool_calls: bool | None = None
    tool_choice: Annotated[JsonValue, neutral("none", "auto")] = None
    function_call: Annotated[JsonValue, neutral("none", "auto")] = None

    tools: EmptyList = None
    functions: EmptyList = None
    top_logprobs: Zero = None
    response_format: Annotated[JsonValue, neutral({"type": "text"})] = None
    reasoning_effort: Annotated[JsonValue, neutral("none")] = None
    verbosity: Annotated[JsonValue, neutral("medium")] = None
    modalities: Annotated[JsonValue, neutral(["text"])] = None
    audio: Null = None
    web_search_options: Null = None
    # vLLM's.
    echo: No = None
    continue_final_message: No = None
    add_special_tokens: No = None
    include_reasoning: Yes = None
    documents: EmptyList = None
    chat_template_kwargs: EmptyObject = None


class UnservedInCompletions(Unserved):
    """Parameters of `POST /v1/completions`."""

    stream: No = None
    suffix: Annotated[JsonValue, neutral("")] = None
    add_special_tokens: Yes = None
