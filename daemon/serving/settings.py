"""Settings of the serve role; `daemon/config.py` composes them into the whole configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, FiniteFloat, SecretStr

from daemon.registry.approval import Approval
from evaluation.settings import CanarySettings, ProbeSettings
from ratchet_client.settings import FrozenModel, Secret, ServerUrl
from streams.policy.client import BASE

MEBIBYTE = 2**20


class CaptureSettings(FrozenModel):
    """Settings of the recording of calls: whether, how large a record may be, and how many may wait for the log."""

    enabled: bool = Field(
        default=True, description="Whether calls are recorded; not where agents report them by themselves as well."
    )
    max_record_bytes: int = Field(
        default=8 * MEBIBYTE, ge=10_000, description="Most bytes of a record; the bodies of a larger one are cut."
    )
    queue_bytes: int = Field(
        default=64 * MEBIBYTE, ge=0, description="Most bytes of bodies that wait for the log; more are dropped."
    )
    queue_calls: int = Field(default=10_000, ge=0, description="Most calls that wait for the log; more are dropped.")
    publish_timeout_s: float = Field(default=10.0, gt=0, description="Longest wait for the log to take a record.")
    flush_s: float = Field(default=5.0, ge=0, description="How long a role that stops waits for the log.")


class PromotionSettings(FrozenModel):
    """Settings of promotion: how it is done, and when a person is asked first."""

    approval: Approval = Field(
        default=Approval.ON_HOLD,
        description="Who lets a candidate serve: always a person, a person if a gate says HOLD, or never a person, "
        "which leaves those on HOLD inconclusive.",
    )
    approval_age_s: float = Field(
        default=7 * 86_400.0,
        gt=0,
        le=3650 * 86_400.0,
        description="Seconds after which a candidate that nobody approved or rejected lapses.",
    )
    hold_after_rollback: bool = Field(
        default=True,
        description="Whether a rollback stops automatic promotion until `ratchet resume`.",
    )
    drain_timeout_s: float = Field(
        default=60.0, gt=0, description="Longest wait for requests in flight before the old adapter is unloaded."
    )
    probe: ProbeSettings = ProbeSettings()


class ShadowSettings(FrozenModel):
    """Settings of the shadow."""

    share: FiniteFloat = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the champion's calls whose copies the candidate of a canary gets.",
    )
    queue_calls: int = Field(default=32, ge=1, description="Most copies that wait; more are dropped and counted.")
    queue_bytes: int = Field(default=16 * 2**20, ge=0, description="Most bytes of requests and replies that wait.")
    concurrency: int = Field(default=1, ge=1, description="Copies that are asked for at once.")
    timeout_s: FiniteFloat = Field(default=120.0, gt=0, description="Longest wait for the answer to a copy.")


class DrillSettings(FrozenModel):
    """Settings of the drills of the rollback."""

    every_s: FiniteFloat = Field(
        default=86_400.0, ge=0, description="Seconds from one drill of the rollback to the next; 0: only on request."
    )
    timeout_s: FiniteFloat = Field(
        default=120.0, gt=0, description="Seconds after which a drill that had no reply has failed."
    )


class ServingSettings(FrozenModel):
    """Settings of the serve role: where it listens and which engine it serves from."""

    host: str = Field(
        default="127.0.0.1", description="Where the gateway and the control API listen; off loopback they need tokens."
    )
    port: int = Field(default=8420, ge=1, le=65535)
    alias: str = Field(default="assistant", min_length=1, description="The one model name that agents use.")
    tokens: dict[Annotated[str, Field(min_length=1, max_length=512)], Annotated[Secret, Field(min_length=16)]] = Field(
        default={}, description="Bearer tokens by principal, with the role `ask`, beside those of `ratchet token`."
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Origins of pages that may post feedback from a browser, or *; none means no page may."
    )
    success_score: float = Field(
        default=0.5, description="The score from which feedback that does not say so is a success."
    )
    inference_url: ServerUrl = Field(
        default="http://127.0.0.1:8421", description="The inference server, with or without /v1."
    )
    replica_urls: tuple[ServerUrl, ...] = Field(
        default=(), description="More inference servers of the same base model."
    )
    engine_key: Secret = Field(default=SecretStr(""), description="The key that the inference servers ask for, if any.")
    base_name: str = Field(default=BASE, min_length=1, description="The inference servers' name for the base model.")
    home: Path = Field(default=Path(".ratchet"), description="Folder of the refs, the audit log and the adapters.")
    timeout_s: float = Field(
        default=300.0, gt=0, description="Longest wait for the inference server to send anything of an answer."
    )
    max_request_bytes: int = Field(default=64 * MEBIBYTE, ge=1, description="Most bytes of a request, decompressed.")
    reconcile_s: float = Field(
        default=2.0, gt=0, description="How often it is checked that the inference servers still have what serves."
    )
    refresh_s: float = Field(
        default=10.0, gt=0, description="How often the store and the broker are asked for figures."
    )
    promotion: PromotionSettings = Field(default=PromotionSettings(), description="As `promotion` at the top says.")
    capture: CaptureSettings = CaptureSettings()
    canary: CanarySettings = CanarySettings()
    shadow: ShadowSettings = ShadowSettings()
    drill: DrillSettings = DrillSettings()
