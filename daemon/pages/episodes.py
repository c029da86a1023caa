"""Episodes: how far they come, why they are not trusted, and the newest of them."""

from starlette.requests import Request
from starlette.responses import Response

from daemon.pages.parts import Parts, within
from daemon.pages.rendering import page
from streams.store.episode_state import EpisodeState
from streams.store.episodes import newest_episodes

_LIMITS = (25, 100, 500)


async def episodes(request: Request, parts: Parts) -> Response:
    """The counts are those that the serve role saw last; the list is asked for now."""
    asked = request.query_params
    state = next((each for each in EpisodeState if each == asked.get("state")), None)
    limit = next((each for each in _LIMITS if str(each) == asked.get("limit")), _LIMITS[0])
    async with parts.control(request) as control:
        report = await control.status()
    found, reason = await within(request, newest_episodes(parts.store, state, limit))
    counts = report.store
    return page(
        request,
        parts,
        "episodes.html",
        title="Episodes",
        report=report,
        funnel=_funnel(counts.funnel) if counts is not None else [],
        counts=_counts(counts.episodes) if counts is not None else [],
        dropped=counts.dropped if counts is not None else {},
        found=found,
        reason=reason,
        state=state,
        states=list(EpisodeState),
        limit=limit,
        limits=_LIMITS,
    )


def _funnel(funnel: dict[str, int]) -> list[tuple[str, int, int]]:
    """The stages, each with its count and the count of the first one."""
    told = {
        "ended": "ended",
        "judged": "judged by an outcome",
        "trusted": "trusted, and learned from",
        "restored": "brought back in a sandbox",
    }
    most = funnel.get("ended", 0)
    return [(told[name], funnel[name], most) for name in told if name in funnel]


def _counts(states: dict[str, dict[str, int]]) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """The states with their counts, and with the counts of their reasons, the most frequent first."""
    return [
        (
            each.value,
            sum(states[each].values()),
            sorted(((why, count) for why, count in states[each].items() if why), key=lambda one: -one[1]),
        )
        for each in EpisodeState
        if states.get(each)
    ]
