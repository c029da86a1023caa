"""The scenarios of `ratchet demo`, by name."""

from enum import StrEnum

from daemon.demo.helpdesk import HELPDESK
from daemon.demo.scenario import Scenario
from daemon.demo.text_game import TEXT_GAME


class ScenarioName(StrEnum):
    """The values of `--scenario`."""

    HELPDESK = HELPDESK.name
    TEXT_GAME = TEXT_GAME.name


SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (HELPDESK, TEXT_GAME)}
