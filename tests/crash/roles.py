"""The real roles as processes that can be killed: `python -m tests.crash.roles record|branch SETTINGS`."""

import asyncio
import sys

from pydantic import BaseModel, ConfigDict

from streams import brancher, recorder
from streams.admission import AdmissionSettings
from streams.holdout import HoldoutSettings
from streams.processes import stop_on_signals
from streams.settings import BranchingSettings, KafkaSettings, StoreSettings


class RoleSettings(BaseModel):
    """What both roles are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: KafkaSettings
    store: StoreSettings
    holdout: HoldoutSettings
    admission: AdmissionSettings
    branching: BranchingSettings


async def main() -> None:
    role, settings = sys.argv[1], RoleSettings.model_validate_json(sys.argv[2])
    if role == "record":
        await recorder.serve(settings.kafka, settings.store, settings.holdout, stop_on_signals(), settings.admission)
    else:
        await brancher.serve(settings.kafka, settings.branching, stop_on_signals())


if __name__ == "__main__":
    asyncio.run(main())
