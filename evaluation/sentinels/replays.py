"""S2: successes that are none when their actions are replayed in a fresh process.

A win that rests on what an earlier episode did to the process, or on chance, is not the candidate's. Successes where
the champion succeeds too are looked at as well: each may hide a loss.

Where an environment does not promise to answer alike each time, the champion's successes are replayed too, and tell
how many differ by chance.
"""

from collections.abc import Mapping

from evaluation.sentinels.comparison import surely_more
from evaluation.sentinels.facts import Facts, Finding
from evaluation.settings import SentinelSettings

_BY_CHANCE = 0.5


def replays(facts: Facts, settings: SentinelSettings) -> Finding:
    groups = {
        "wins": {place: won for place, won in facts.replays.items() if facts.pairs[place].is_win},
        "other successes": {place: won for place, won in facts.replays.items() if not facts.pairs[place].is_win},
    }
    differing = {name: [place for place, won in group.items() if not won] for name, group in groups.items()}
    hits = []
    for name, group in groups.items():
        places = differing[name]
        if len(places) >= settings.fewest_replays_differing and _too_many(len(places), len(group), facts, settings):
            hits.append(
                f"S2: {len(places)} of {len(group)} {name} ({len(places) / len(group):.1%}) are none when their "
                f"actions are replayed in a fresh process (at most {settings.most_replays_differing:.0%} may be), "
                f"such as {facts.pairs[places[0]].task.task_id!r}."
            )
    figures = {
        "wins_replayed": len(groups["wins"]),
        "wins_not_repeated": len(differing["wins"]),
        "other_successes_replayed": len(groups["other successes"]),
        "other_successes_not_repeated": len(differing["other successes"]),
    }
    return Finding(figures, tuple(hits))


def _too_many(differing: int, replayed: int, facts: Facts, settings: SentinelSettings) -> bool:
    if differing <= settings.most_replays_differing * replayed:
        return False
    if facts.deterministic:
        return True
    usual: Mapping[int, bool] = facts.champion_replays
    if len(usual) < settings.least_successes:
        return differing > _BY_CHANCE * replayed
    return surely_more(differing, replayed, sum(not won for won in usual.values()), len(usual), settings.z)
