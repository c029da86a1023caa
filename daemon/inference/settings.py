"""Settings of the embedded inference server. `__main__` reads it from the command line."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ratchet_client.settings import FrozenModel
from streams.runtime.logs import LogFormat, LogLevel


class InferenceSettings(FrozenModel):
    """Settings of one server process.

    The keys and values of a slot take memory only as far as they were ever written: 23 KB a token for SmolLM2-135M in
    bfloat16, for each loaded model apart.
    """

    model: Path = Field(description="Folder of a Hugging Face causal language model with a tokenizer.")
    served_name: str = Field(default="base", min_length=1, description="The name that the base model answers to.")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    threads: int = Field(default=2, ge=1, description="Torch threads; more than there are free cores is slower.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="`auto` is bfloat16 where the processor multiplies it natively, else float32."
    )
    slots: int = Field(default=192, ge=1, description="Chats whose keys and values are kept, for each loaded model.")
    max_length: int = Field(default=2048, ge=8, description="Longest prompt and reply together, in tokens.")
    max_waiting: int = Field(default=1024, ge=1, description="Replies that may be asked for at once; more get a 429.")
    prefill_budget: int = Field(
        default=2048, ge=16, description="Prompt tokens per forward pass, so that replies under way are not starved."
    )
    log_format: LogFormat = Field(default="console", description="Lines for people, or JSON.")
    log_level: LogLevel = Field(default="info", description="What is of this level or above is logged.")
