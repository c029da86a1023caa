"""Parameters of the OpenAI API and of vLLM that are not served, with the values that they are taken with.

Clients send many parameters at neutral values, or such as change no reply. Any other value is refused, since a caller
would otherwise believe that it had an effect. `requests.py` has what is served, docs/inference.md tells of both.
"""

import json
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from ratchet_client.settings import FrozenModel


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
Unlimited: TypeAlias = Annotated[JsonValue, neutral(-1)]
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
    # vLLM's. The last three are about the form in which other endpoints, or a stream, tell the same.
    request_id: str | None = None
    session_id: str | None = None
    cache_salt: str | None = None
    return_token_offsets: bool | None = None
    return_mm_kwargs: bool | None = None
    stream_interval: int | None = Field(default=None, ge=1)

    best_of: One = None
    # vLLM's.
    length_penalty: One = None
    priority: Zero = None
    use_beam_search: No = None
    watermarking: No = None
    spaces_between_special_tokens: Yes = None
    truncate_prompt_tokens: Unlimited = None
    truncation_side: Null = None
    thinking_token_budget: Unlimited = None
    repetition_detection: Null = None
    logprob_token_ids: Null = None
    routed_experts_prompt_start: Zero = None
    kv_transfer_params: EmptyObject = None
    ec_transfer_params: EmptyObject = None
    vllm_xargs: EmptyObject = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return without_nulls(value)


class UnservedInChat(Unserved):
    """Parameters of `POST /v1/chat/completions`."""

    # A guess at the reply, to have it sooner.
    prediction: dict[str, JsonValue] | None = None

    # Before tools there were functions.
    functions: EmptyList = None
    function_call: Annotated[JsonValue, neutral("none", "auto")] = None
    verbosity: Annotated[JsonValue, neutral("medium")] = None
    modalities: Annotated[JsonValue, neutral(["text"])] = None
    audio: Null = None
    moderation: Null = None
    web_search_options: Null = None
    # They change the prompt, and a model is trained on the prompt that its template writes by default.
    chat_template_kwargs: EmptyObject = None
    # vLLM's.
    chat_template: Null = None
    echo: No = None
    continue_final_message: No = None
    add_special_tokens: No = None
    documents: EmptyList = None
    media_io_kwargs: EmptyObject = None
    mm_processor_kwargs: EmptyObject = None
    return_prompt_text: No = None


class UnservedInCompletions(Unserved):
    """Parameters of `POST /v1/completions`."""

    suffix: Annotated[JsonValue, neutral("")] = None
    add_special_tokens: Yes = None
    prompt_embeds: Null = None
    prompt_logprobs: Null = None
    return_token_ids: No = None
