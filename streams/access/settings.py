"""Settings of access; `daemon/config.py` composes them into the whole configuration."""

from typing import Annotated

from pydantic import Field

from ratchet_client.settings import FrozenModel
from streams.runtime.tls import TlsSettings

_Most = Annotated[int, Field(ge=0)]
_MostIfSaid = Annotated[int | None, Field(ge=0)]


class OwnLimits(FrozenModel):
    """Limits of one principal in the place of those of all; one that is left out stays that of all, 0 is none."""

    requests_per_minute: _MostIfSaid = None
    tokens_per_minute: _MostIfSaid = None
    request_bytes: _MostIfSaid = None
    in_flight: _MostIfSaid = None


class PrincipalLimits(FrozenModel):
    """How much a principal may ask of the gateway; 0 is no limit. A minute's worth may be asked for at once."""

    requests_per_minute: _Most = Field(default=0, description="Most requests of a principal in a minute; 0: any.")
    tokens_per_minute: _Most = Field(
        default=0,
        description="Most tokens of a principal's calls in a minute, prompt and completion, as the inference server "
        "counts them; 0: any.",
    )
    request_bytes: _Most = Field(
        default=0, description="Most bytes of a principal's request, decompressed; 0: as serving.max_request_bytes."
    )
    in_flight: _Most = Field(default=0, description="Most requests of a principal that are open at once; 0: any.")


class LimitSettings(PrincipalLimits):
    """The limits of every principal, and of all requests without a token together."""

    principals: dict[str, OwnLimits] = Field(default={}, description="Other limits, by principal.")

    def of(self, principal: str | None) -> PrincipalLimits:
        """The limits of one principal.

        >>> LimitSettings(in_flight=8, principals={"ann": {"in_flight": 0}}).of("ann").in_flight
        0
        """
        own = self.principals.get(principal) if principal is not None else None
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))


class AccessSettings(FrozenModel):
    """Settings of who is let in without a token, of how much each may ask, and of TLS at all interfaces."""

    open: bool = Field(
        default=False,
        description="Whether interfaces may listen off loopback although there are no tokens: any client that reaches "
        "them may then do everything.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Further names, without ports, under which clients without a token may ask: the Host header of "
        "such a request names one of them, the host that is listened on, localhost or an address.",
    )
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings = TlsSettings()
