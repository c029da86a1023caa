"""The figures that a canary is judged by. `evaluation/canary.py` counts them; status and the audit log keep them."""

from pydantic import FiniteFloat

from ratchet_client.settings import FrozenModel


class CanaryFigures(FrozenModel):
    """What the judgement rests on. The e-values are those of the last block; a proof is one of 2/alpha and more."""

    champion_episodes: int = 0
    champion_successes: int = 0
    candidate_episodes: int = 0
    candidate_successes: int = 0
    blocks: int = 0
    e_better: FiniteFloat = 1.0
    e_worse: FiniteFloat = 1.0
    e_not_worse: FiniteFloat | None = None
