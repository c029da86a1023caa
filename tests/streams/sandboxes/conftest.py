"""What isolates sandboxes: each tier, and the resource monitor."""

from collections.abc import Iterator

import pytest

from streams.sandboxes.isolation.launching import Tier
from streams.sandboxes.isolation.resource_monitor import Warden
from tests.streams.sandboxes.isolated import TIERS, tier_called


@pytest.fixture(scope="module")
def warden() -> Iterator[Warden]:
    with Warden() as warden:
        yield warden


@pytest.fixture(scope="module", params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_called(request.param)
