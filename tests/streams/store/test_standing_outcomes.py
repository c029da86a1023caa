"""Of each verifier the latest outcome counts: it gives trust, takes it away, gives it back, in any order of arrival."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, permutations
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet_client.events import OutcomeEvent
from ratchet_client.messages import user
from streams.store.queries.status import NOT_TRUSTED_BY_REASON
from streams.store.queries.trust import FAILED_AS_OF, TRUSTED_AS_OF, UNTRUSTED_NOW, decisions
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.rules import ONLY_MODELS, TrustSettings
from streams.trust.settings import QuotaSettings
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import Log, column, requests

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = count()
UNLIMITED = QuotaSettings(per_principal=10**6, near_duplicates=10**6)
Said = tuple[str, bool, int]

verdicts = st.tuples(st.sampled_from(["game", "thumbs", "model:judge"]), st.booleans(), st.integers(0, 3))


def open_store(path: Path, trust: TrustSettings = TrustSettings()) -> Store:  # noqa: B008 - frozen
    return Store.open(StoreSettings(path=path), HOLDOUT, KAFKA, UNLIMITED, trust=trust)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Log]]:
    store = open_store(tmp_path_factory.mktemp("standing") / "store.duckdb")
    yield store, Log(store)
    store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


def outcome(name: str, verifier: str, success: bool, hour: int) -> OutcomeEvent:
    at = BEGAN + timedelta(hours=hour)
    return OutcomeEvent(episode_id=name, verifier=verifier, success=success, score=float(success), recorded_at=at)


def state(store: Store, name: str) -> str | None:
    found = column(store, f"SELECT state FROM ({decisions()}) WHERE episode_id = '{name}'")
    return str(found[0]) if found else None


def expected(said: Sequence[Sequence[Said]]) -> list[str | None]:
    """By brute force: the state after each batch."""
    states: list[str | None] = []
    heard: list[Said] = []
    for batch in said:
        heard += batch
        standing: dict[str, tuple[int, bool]] = {}
        for verifier, success, hour in heard:
            if verifier not in standing or hour >= standing[verifier][0]:
                standing[verifier] = (hour, success)
        successes = [success for _, success in standing.values()]
        before = states[-1] if states else None
        if not standing:
            states.append(None)
        elif all(successes) and any(not verifier.startswith("model:") for verifier in standing):
            states.append("trusted")
        elif before in ("trusted", "untrusted"):
            states.append("untrusted")
        else:
            states.append("undecided" if any(successes) else "failed")
    return states


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.lists(verdicts, min_size=1, max_size=3), max_size=5))
def test_trust_is_what_the_outcomes_that_count_say_now_and_as_of_every_moment_before(
    log: tuple[Store, Log], said: list[list[Said]]
) -> None:
    store, published = log
    name = f"episode-{next(NAMES)}"
    *steps, _ = episode(name, actor="policy", steps=1)
    published.publish(*steps)
    states = expected(said)
    moments = []
    for batch, wanted in zip(said, states, strict=True):
        published.publish(*(outcome(name, *each) for each in batch))
        moments.append(store.sequence)
        assert state(store, name) == wanted
    for moment, wanted in zip(moments, states, strict=True):
        for query, table in ((TRUSTED_AS_OF, "trusted"), (FAILED_AS_OF, "failed")):
            rows = store.query(f"FROM ({query}) WHERE episode_id = $id", {"as_of": moment, "id": name})
            assert rows.num_rows == (wanted == table)
    asked = [request.verdict for request in requests(store) if request.episode_id == name]
    assert len(asked) == len(set(asked))
    store.published(store.sequence)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_in_which_verdicts_arrive_does_not_matter(log: tuple[Store, Log], order: tuple[int, ...]) -> None:
    store, published = log
    name = f"episode-{next(NAMES)}"
    *steps, _ = episode(name, actor="policy", steps=1)
    said = [outcome(name, "thumbs", success, hour) for hour, success in enumerate((True, False, True))]
    published.publish(*steps)
    for number in order:
        published.publish(said[number])
    assert state(store, name) == "trusted"


def test_an_older_verdict_that_arrives_late_changes_nothing_and_speaks_of_no_new_step(path: Path) -> None:
    store = open_store(path)
    first, second, _ = episode("a", actor="policy", steps=2)
    log = Log(store)
    log.publish(first, outcome("a", "thumbs", True, 5))
    log.publish(second)
    rows = column(store, "SELECT count(*) FROM trusted")
    log.publish(outcome("a", "thumbs", False, 4), outcome("a", "thumbs", True, 3))
    assert (state(store, "a"), column(store, "SELECT count(*) FROM trusted")) == ("trusted", rows)
    log.publish(outcome("a", "thumbs", True, 6))
    assert column(store, "SELECT count(*) FROM trusted") == [2]
    store.close()


def test_what_else_forbids_trust_forbids_it_after_any_thumbs_up(path: Path) -> None:
    store = open_store(path)
    log = Log(store)
    first, end = episode("a", actor="policy", steps=1)
    log.publish(first, outcome("a", "thumbs", True, 1))
    log.publish(first.model_copy(update={"event_id": "other", "observation": (user("Nothing."),)}))
    assert state(store, "a") == "untrusted"
    log.publish(outcome("a", "thumbs", False, 2), outcome("a", "thumbs", True, 3), end)
    assert state(store, "a") == "untrusted"
    assert column(store, f"SELECT reason FROM ({UNTRUSTED_NOW})") == ["two events say different things of one step"]
    store.close()


def test_models_make_an_episode_trusted_only_while_the_setting_says_so(path: Path) -> None:
    store = open_store(path)
    *steps, _ = episode("a", actor="policy", steps=1)
    Log(store).publish(*steps, outcome("a", "model:judge", True, 1))
    assert column(store, NOT_TRUSTED_BY_REASON) == [ONLY_MODELS]
    store.close()
    for allowed, expected_state in ((True, "trusted"), (True, "trusted"), (False, "untrusted"), (True, "trusted")):
        store = open_store(path, TrustSettings(model_judges=allowed))
        assert state(store, "a") == expected_state
        store.close()


def test_a_file_of_a_version_without_the_time_of_outcomes_is_judged_by_them_when_it_is_opened(path: Path) -> None:
    store = open_store(path)
    log = Log(store)
    for name in ("rises", "waits"):
        *steps, _ = episode(name, actor="policy", steps=1)
        log.publish(*steps, outcome(name, "thumbs", False, 1))
    log.publish(outcome("waits", "game", True, 2))
    store.close()
    with duckdb.connect(str(path)) as old:
        old.execute("ALTER TABLE outcomes DROP COLUMN recorded_at")
        old.execute("DROP TABLE undecided")
        old.execute(
            "INSERT INTO events SELECT * REPLACE (1000 AS sequence, 'up' AS event_id, TIMESTAMP '2026-12-01' "
            "AS recorded_at) FROM events WHERE episode_id = 'rises' AND kind = 'outcome'"
        )
        old.execute(
            "INSERT INTO outcomes SELECT * REPLACE (1001 AS sequence, 'up' AS event_id, true AS success) "
            "FROM outcomes WHERE episode_id = 'rises'"
        )
    store = open_store(path)
    assert (state(store, "rises"), state(store, "waits")) == ("trusted", "undecided")
    sequence = store.sequence
    store.close()
    store = open_store(path)
    assert store.sequence == sequence
    store.close()
