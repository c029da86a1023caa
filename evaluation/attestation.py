"""Proof that what is served is what was trained. Promotion calls `measure` and `check` between
loading an adapter and serving it.

A stale or no-op adapter is the field's most reported silent failure: training seems to work and the served model never
changes. The trainer records the log-probabilities of probe prompts under the trained model; the server must reproduce
them, and must be much nearer to them than to the bare base model.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from evaluation.settings import ProbeSettings
from ratchet_client.settings import FrozenModel
from streams.errors import PromotionError
from streams.policy.client import PolicyClient

PROBES_FILE = "probes.json"


class Probes(FrozenModel):
    """The content of an adapter's `probes.json`.

    `prompts` are token ids, or texts in adapters of the first versions. `logprobs` holds, for each prompt, the
    log-probability in nats of each token but the first under the trained model.
    """

    prompts: tuple[str | tuple[int, ...], ...] = Field(min_length=1)
    logprobs: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _every_prompt_has_its_logprobs(self) -> Self:
        if len(self.prompts) != len(self.logprobs) or not all(self.logprobs):
            raise ValueError("every prompt needs the log-probabilities of its tokens")
        return self

    @classmethod
    def read(cls, adapter_folder: Path) -> Self:
        """Raises `PromotionError` when the adapter has no readable record of its trainer."""
        path = adapter_folder / PROBES_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise PromotionError(f"{path} cannot be read, so the adapter cannot be attested; train it again") from error


@dataclass(frozen=True, slots=True)
class Attestation:
    """Mean absolute differences per token, in nats: served to recorded, and served to the base model."""

    deviation: float
    effect: float

    def check(self, served: str, base: str, settings: ProbeSettings) -> None:
        """Raise `PromotionError` when this does not prove that `served` is the trained adapter and not `base`.

        It does where the served log-probabilities differ from the trainer's by the tolerance at most, and are twice as
        near to them as to the base model's; otherwise it is a no-op, or another adapter.
        """
        figures = f"{self.deviation:.3f} nats per token from its trainer's record, {self.effect:.3f} from {base}"
        # `not <=` rather than `>`: a NaN proves nothing.
        if not self.deviation <= settings.tolerance:
            raise PromotionError(
                f"{served} is not the adapter that was trained: it is {figures}, allowed are {settings.tolerance:g}"
            )
        if not 2 * self.deviation < self.effect:
            raise PromotionError(f"{served} is a no-op or another adapter: it is {figures}")


async def measure(policy: PolicyClient, served: str, base: str, probes: Probes) -> Attestation:
    """How far `served` is from its trainer's record and from `base`.

    Raises `PromotionError` when server and trainer split a probe into different tokens, and `PolicyError`.
    """
    # All at once: one after the other each would wait for a step of a busy server.
    now_and_bare = await asyncio.gather(
        *(policy.prompt_logprobs(model, prompt) for model in (served, base) for prompt in probes.prompts)
    )
    count = len(probes.prompts)
    to_record: list[float] = []
    to_base: list[float] = []
    for now, bare, recorded in zip(now_and_bare[:count], now_and_bare[count:], probes.logprobs, strict=True):
        if len(now) != len(recorded):
            raise PromotionError(
                f"{served} scores {len(now)} tokens of a probe where its trainer scored {len(recorded)}: "
                "server and trainer do not use the same tokenizer"
            )
        to_record += [abs(a - b) for a, b in zip(now, recorded, strict=True)]
        to_base += [abs(a - b) for a, b in zip(now, bare, strict=True)]
    return Attestation(deviation=sum(to_record) / len(to_record), effect=sum(to_base) / len(to_base))
