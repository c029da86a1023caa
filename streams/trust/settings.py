"""Settings of the quotas. Apart from what compares episodes, so that reading a configuration loads no NumPy."""

from pydantic import Field

from ratchet_client.settings import FrozenModel


class QuotaSettings(FrozenModel):
    """Limits on the episodes that become trusted within 24 hours."""

    per_principal: int = Field(default=2000, ge=1, description="Trusted episodes of one principal in 24 hours.")
    near_duplicates: int = Field(default=50, ge=1, description="Trusted episodes in 24 hours that are nearly the same.")
    similarity_hash_bits: int = Field(
        default=2, ge=0, le=32, description="Episodes are nearly the same when at most so many of 64 bits differ."
    )
