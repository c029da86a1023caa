"""Settings of access; `daemon/config.py` composes them into the whole configuration."""

from pydantic import Field

from streams.settings import FrozenModel


class AccessSettings(FrozenModel):
    """Settings of who is let in without a token."""

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
