"""Non-inferiority of paired success rates: is one adapter at most a margin worse than another on the same tasks?

Pure functions; the gate `no_forgetting` calls them. A *win* is a task that only the one under test solves, a *loss* one
that only the other solves. The hypothesis to be refuted is that the success rate is lower by `margin` or more.
"""

from math import ceil, exp, log, log1p, sqrt

from scipy.special import logsumexp
from scipy.stats import norm

# Small ones gain where the two are alike, large ones where the one is much better.
_BETS = (0.1, 0.25, 0.5, 0.75, 0.9)
_MOST_LOG = 690.0


def tango_test(tasks: int, wins: int, losses: int, margin: float) -> float:
    """One-sided p-value of the score test: how likely so good a result is at a difference of exactly -`margin`.

    The nuisance parameter, the probability of a loss, is its maximum-likelihood estimate under that difference.

    Source: Tango (1998), Statistics in Medicine 17, 891-908. His example, 44 pairs, one loss, margin 0.1: z = 1.709.

    >>> round(tango_test(tasks=44, wins=0, losses=1, margin=0.1), 4)
    0.0438
    """
    _check(tasks, wins, losses, margin)
    difference = -margin
    linear = -wins - losses + (2 * tasks - wins + losses) * difference
    constant = -losses * difference * (1 - difference)
    loss = (sqrt(linear**2 - 8 * tasks * constant) - linear) / (4 * tasks)
    variance = tasks * (2 * loss + difference * (1 - difference))
    distance = wins - losses - tasks * difference
    if variance <= 0:
        return 0.0 if distance > 0 else 1.0
    return float(norm.sf(distance / sqrt(variance)))


def e_value(tasks: int, wins: int, losses: int, margin: float) -> float:
    """Evidence against inferiority that may be looked at after any task.

    A bettor stakes a share λ of his wealth on each task: ∏(1 + λ·(result + margin)) with a result of 1 for a win, -1
    for a loss and 0 else, mixed over several λ. If the rate is lower by `margin` or more he does not gain on average,
    so the chance that the value ever reaches 1/alpha is at most alpha, whenever one looks (Ville's inequality). It ends
    near 1e300, where floats do.

    Source: Waudby-Smith & Ramdas (2024), JRSS-B 86, "Estimating means of bounded random variables by betting".

    >>> round(e_value(tasks=20, wins=10, losses=0, margin=0.02), 1)
    245.4
    >>> e_value(tasks=0, wins=0, losses=0, margin=0.02)
    1.0
    """
    _check(max(1, tasks), wins, losses, margin)
    ties = tasks - wins - losses
    logarithms = [
        wins * log1p(bet * (1 + margin)) + losses * log1p(bet * (margin - 1)) + ties * log1p(bet * margin)
        for bet in _BETS
    ]
    return exp(min(_MOST_LOG, logsumexp(logarithms) - log(len(_BETS))))


def power(tasks: int, discordance: float, margin: float, alpha: float) -> float:
    """The chance that the score test proves non-inferiority of an adapter that is exactly as good.

    `discordance` is the share of tasks that only one of the two solves; normal approximation.

    >>> round(power(tasks=1932, discordance=0.125, margin=0.02, alpha=0.05), 2)
    0.8
    """
    if tasks == 0:
        return 0.0
    if discordance <= 0:
        # Both always agree: the variance is that of the boundary of the hypothesis.
        discordance = margin
    return float(norm.cdf(margin * sqrt(tasks / discordance) - norm.isf(alpha)))


def tasks_for_power(wanted: float, discordance: float, margin: float, alpha: float) -> int:
    """The tasks with which `power` is at least `wanted`.

    >>> tasks_for_power(0.8, discordance=0.125, margin=0.02, alpha=0.05)
    1933
    """
    distance = norm.isf(alpha) + norm.isf(1 - wanted)
    return ceil(float(max(discordance, margin) * (distance / margin) ** 2))


def _check(tasks: int, wins: int, losses: int, margin: float) -> None:
    if tasks <= 0 or min(wins, losses) < 0 or wins + losses > tasks:
        raise ValueError(f"not results of {tasks} tasks: {wins} wins, {losses} losses")
    if not 0 < margin < 1:
        raise ValueError(f"not a margin: {margin}")
