"""The real roles as processes that can be killed: `python -m tests.roles record|branch SETTINGS`."""

import asyncio
import sys

import structlog

from ratchet_client.settings import FrozenModel
from streams.branching import role as branch_role
from streams.branching.settings import BranchingSettings
from streams.intake import role as record_role
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.redaction.key import redaction_key
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.runtime.processes import stop_on_signals
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings


class RoleSettings(FrozenModel):
    """What both roles are told."""

    kafka: KafkaSettings
    store: StoreSettings = StoreSettings()
    holdout: HoldoutSettings = HoldoutSettings()
    admission: AdmissionSettings = AdmissionSettings()
    branching: BranchingSettings = BranchingSettings()


async def main() -> None:
    # Tests read what a role says it did.
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    role, settings = sys.argv[1], RoleSettings.model_validate_json(sys.argv[2])
    if role == "record":
        await record_role.serve(settings.kafka, settings.store, settings.holdout, stop_on_signals(), settings.admission)
    else:
        redactor = Redactor(RedactionSettings(), redaction_key(settings.store.path.parent))
        await branch_role.serve(settings.kafka, settings.branching, stop_on_signals(), redactor)


if __name__ == "__main__":
    asyncio.run(main())
