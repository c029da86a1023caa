"""Which side answers an episode is drawn once, written down, and never changes."""

from pathlib import Path

import pytest

from daemon.serving.assignment import Assignment, RecentKeys, place
from streams.calls.records import record_key

KEYS = [record_key("episode", "", f"episode-{number}") for number in range(4000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "canary" / "one.episodes"


def sides(assignment: Assignment, keys: list[str], *, begins: bool = True) -> list[bool]:
    return [assignment.is_candidate(key, begins=begins) for key in keys]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_candidate_gets_its_share_of_the_episodes(share: float, path: Path) -> None:
    drawn = sum(sides(Assignment(path, share, "salt"), KEYS))
    assert abs(drawn / len(KEYS) - share) < 4 * (share * (1 - share) / len(KEYS)) ** 0.5


def test_each_canary_draws_other_episodes(tmp_path: Path) -> None:
    one, other = (sides(Assignment(tmp_path / salt, 0.5, salt), KEYS) for salt in ("one", "other"))
    both = sum(a and b for a, b in zip(one, other, strict=True))
    assert 0.2 < both / len(KEYS) < 0.3
    assert place("one", KEYS[0]) == place("one", KEYS[0]) != place("other", KEYS[0])


def test_an_episode_stays_where_it_began_over_calls_and_restarts(path: Path) -> None:
    first = Assignment(path, 0.3, "salt")
    began = sides(first, KEYS)
    assert sides(first, KEYS, begins=False) == began
    # Without a `close`: the process was killed.
    restarted = Assignment(path, 0.3, "salt")
    assert sides(restarted, KEYS, begins=False) == began


def test_an_episode_that_goes_on_when_it_is_first_seen_is_the_champions_and_stays_so(path: Path) -> None:
    assignment = Assignment(path, 0.5, "salt")
    assert not any(sides(assignment, KEYS, begins=False))
    assert not any(sides(assignment, KEYS, begins=True))
    assert not any(sides(Assignment(path, 0.5, "salt"), KEYS, begins=True))


def test_what_was_seen_before_the_canary_stays_with_the_champion(path: Path) -> None:
    recent = RecentKeys(3000)
    for key in KEYS[:2000]:
        recent.add(key)
    before = Assignment(path, 0.5, "salt")
    before.leave_to_champion(recent.all())
    before.close()
    assignment = Assignment(path, 0.5, "salt")
    assert not any(sides(assignment, KEYS[:2000]))
    assert any(sides(assignment, KEYS[2000:]))


def test_only_the_newest_keys_are_remembered() -> None:
    recent = RecentKeys(2)
    for key in ("a", "b", "a", "c"):
        recent.add(key)
    assert recent.all() == ("a", "c")


def test_a_response_is_followed_to_the_side_of_its_episode(path: Path) -> None:
    assignment = Assignment(path, 0.01, "salt")
    key = record_key("conversation", "", "resp_1")
    assignment.follow(key)
    assert assignment.is_candidate(key, begins=False)
    assert Assignment(path, 0.01, "salt").is_candidate(key, begins=False)


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_line_that_a_crash_left_unfinished_harms_no_other(cut: int, path: Path) -> None:
    began = sides(Assignment(path, 0.5, "salt"), KEYS[:50])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    restarted = Assignment(path, 0.5, "salt")
    later = sides(restarted, KEYS[50:100])
    again = Assignment(path, 0.5, "salt")
    assert sides(again, KEYS[50:100], begins=False) == later
    assert sides(again, KEYS[:40], begins=False) == began[:40]


def test_an_episode_that_cannot_be_written_down_is_the_champions(path: Path) -> None:
    assignment = Assignment(path, 0.5, "salt")
    assignment.close()
    assert not any(sides(assignment, KEYS[:50]))
