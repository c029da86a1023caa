"""What isolates sandboxes: each tier, and the resource monitor."""

from collections.abc import Iterator

import pytest

from streams.sandboxes.isolation.launching import Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from tests.streams.sandboxes.isolated import TIERS, tier_called


@pytest.fixture(scope="module")
def monitor() -> Iterator[ResourceMonitor]:
    with ResourceMonitor() as monitor:
        yield monitor


@pytest.fixture(scope="module", params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_called(request.param)
