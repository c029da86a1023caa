"""A token that may read some rows only sees these, however it asks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from ratchet_client.events import Event, StepEvent
from streams.access.access import Access
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole, RowFilter
from streams.store.api import build_api
from streams.store.limited_queries import LimitedQueries
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA, TASK, episode
from tests.builders.stored import Log

SECRET = "the-other-tenants-secret"
ACME = RowFilter(principal_prefix="acme/")


def of(principal: str, name: str, *, agent: str = "assistant", action: str = "go") -> list[Event]:
    """An episode of one principal and one agent."""
    update = {"principal": principal, "agent": agent}
    return [
        event.model_copy(update=update) if isinstance(event, StepEvent) else event
        for event in episode(name, TASK, action=action)
    ]


class Reader:
    """Asks the query API with a token of its own."""

    def __init__(self, client: httpx.AsyncClient, home: Path) -> None:
        self._client, self._file = client, TokenFile(home)
        self._tokens: dict[RowFilter | None, str] = {}

    async def ask(self, sql: str, rows: RowFilter | None = ACME, **parameters: object) -> httpx.Response:
        if rows not in self._tokens:
            self._tokens[rows] = self._file.issue(f"reader-{len(self._tokens)}", [AccessRole.READ], rows=rows)
        return await self.get("POST", "/query", rows, json={"sql": sql, "parameters": parameters})

    async def get(self, method: str, path: str, rows: RowFilter | None, **content: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._tokens[rows]}"}
        return await self._client.request(method, path, headers=headers, **content)

    async def rows(self, sql: str, rows: RowFilter | None = ACME, **parameters: object) -> list[dict[str, Any]]:
        answer = await self.ask(sql, rows, **parameters)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        return found


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    """A store of two tenants, acme and others, and of episodes that both have a part in."""
    settings = StoreSettings(path=tmp_path / "store.duckdb", memory="200MB")
    store = Store.open(settings, HOLDOUT, KAFKA)
    log = Log(store)
    log.publish(*of("acme/ann", "ours"), *of("acme/ben", "ours-too", agent="planner", action="plan"))
    log.publish(*of("acmeX", "near"), *of("other/cara", SECRET, agent=SECRET, action=SECRET))
    first, second, end = of("acme/ann", "shared", action="share")
    stranger = of("other/cara", "shared", action=SECRET)[1].model_copy(update={"event_id": "shared-1"})
    log.publish(first, stranger, end)
    assert second.event_id == stranger.event_id
    log.branched("ours", TASK)
    log.branched(SECRET, TASK)
    home = tmp_path / "home"
    api = build_api(store, LimitedQueries(store, settings), access=Access(home=home), path=settings.path)
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield Reader(client, home)
    store.close()


async def test_each_table_shows_the_rows_of_a_tenants_own_episodes(reader: Reader) -> None:
    everything = await reader.rows("SELECT DISTINCT episode_id FROM events ORDER BY 1", None)
    assert {row["episode_id"] for row in everything} >= {"ours", "ours-too", "near", "shared", SECRET}
    for table in ("events", "outcomes", "transitions"):
        found = await reader.rows(f"SELECT DISTINCT episode_id FROM {table} ORDER BY 1")
        assert found == [{"episode_id": "ours"}, {"episode_id": "ours-too"}], table
    assert await reader.rows("SELECT DISTINCT origin FROM transitions ORDER BY 1") == await reader.rows(
        "SELECT DISTINCT origin FROM transitions WHERE episode_id = 'ours' ORDER BY 1", None
    )
    assert await reader.rows("SELECT episode_id, executed FROM branches") == await reader.rows(
        "SELECT episode_id, executed FROM branches WHERE episode_id = 'ours'", None
    )
    assert await reader.rows("SELECT principal FROM trusted ORDER BY 1") == [
        {"principal": "acme/ann"},
        {"principal": "acme/ben"},
    ]
    for table in TABLES:
        for row in await reader.rows(f"FROM {table}"):
            assert SECRET not in str(row), table
            assert row.get("principal") in (None, "acme/ann", "acme/ben")
    for table in ("offsets", "outbox", "logs", "duplicates"):
        assert await reader.rows(f"FROM {table}") == []


async def test_rows_may_be_those_of_agents_and_both_conditions_hold_together(reader: Reader) -> None:
    asked = "SELECT DISTINCT episode_id FROM transitions WHERE origin = 'production' ORDER BY 1"
    planner = RowFilter(agents=("planner",))
    assert await reader.rows(asked, planner) == [{"episode_id": "ours-too"}]
    both = RowFilter(principal_prefix="acme/", agents=("assistant", SECRET))
    assert await reader.rows(asked, both) == [{"episode_id": "ours"}]
    assert await reader.rows("FROM retractions", planner) == []


async def test_ordinary_queries_work_with_parameters_joins_and_aggregates(reader: Reader) -> None:
    sql = """
        WITH steps AS (SELECT episode_id, count(*) AS steps FROM transitions WHERE origin = $origin GROUP BY ALL)
        SELECT s.steps, o.success FROM steps AS s JOIN outcomes AS o USING (episode_id) ORDER BY episode_id
    """
    assert await reader.rows(sql, origin="production") == [
        {"steps": 2, "success": True},
        {"steps": 2, "success": True},
    ]
    refused = await reader.ask("SELECT $missing")
    assert (refused.status_code, "$missing" in refused.text) == (400, True)


# Each either is refused, or answers without a word of the others'.
ATTEMPTS = {
    "other names of a table": 'SELECT * FROM main."events"',
    "names in capitals and quotes": 'SELECT * FROM "MAIN"."Events"',
    "the file's own name": "SELECT * FROM store.main.events",
    "the file's own name, quoted": 'SELECT * FROM "store"."main"."transitions"',
    "a temporary name": "SELECT * FROM temp.events",
    "a subquery": f"SELECT (SELECT action FROM transitions WHERE action LIKE '%{SECRET[:5]}%' LIMIT 1) AS found",
    "a correlated subquery": "SELECT episode_id, (SELECT max(t.action) FROM main.transitions t) FROM events",
    "a CTE of the same name": "WITH events AS (SELECT * FROM main.events) SELECT * FROM events",
    "a recursive CTE": "WITH RECURSIVE r AS (SELECT * FROM transitions UNION SELECT * FROM transitions) FROM r",
    "a comment": "SELECT * FROM /* nothing */ main/**/./**/events -- episode_id",
    "a query in a text": "SELECT * FROM query('SELECT * FROM main.transitions')",
    "a table in a text": "SELECT * FROM query_table('trans' || 'itions')",
    "tables that DuckDB tells of": "SELECT * FROM duckdb_tables()",
    "views that DuckDB tells of": "SELECT * FROM duckdb_views()",
    "columns and their statistics": "SELECT * FROM duckdb_columns()",
    "databases": "SELECT * FROM duckdb_databases()",
    "settings": "SELECT * FROM duckdb_settings()",
    "the size of tables": "SELECT * FROM pragma_storage_info('transitions')",
    "databases, by a pragma": "SELECT * FROM pragma_database_list",
    "the standard's schema": "SELECT * FROM information_schema.columns",
    "PostgreSQL's schema": "SELECT * FROM pg_catalog.pg_class",
    "SQLite's schema": "SELECT * FROM sqlite_master",
    "an error that tells": "SELECT CAST(action AS INTEGER) FROM transitions",
    "an error in a condition": f"SELECT 1 FROM transitions WHERE error(action) IS NULL OR action = '{SECRET}'",
    "an error in a case": (
        f"SELECT count(*) FROM events WHERE CASE WHEN agent = '{SECRET}' THEN error(agent) ELSE 'x' END = 'x'"
    ),
    "a union": "SELECT episode_id FROM events UNION ALL SELECT episode_id FROM outcomes",
    "a set difference": "SELECT episode_id FROM main.events EXCEPT SELECT episode_id FROM events",
    "a lateral join": "SELECT e.* FROM events e, LATERAL (SELECT * FROM main.transitions) t",
    "a sample": "SELECT * FROM transitions USING SAMPLE 100 PERCENT",
    "the store's file": "SELECT * FROM 'store.duckdb'",
    "the store's file, by its path": "SELECT * FROM read_text('{path}')",
    "its bytes": "SELECT * FROM read_blob('{path}')",
    "files": "SELECT * FROM glob('{folder}/*')",
    "lines": "SELECT * FROM read_csv('{path}', ignore_errors = true)",
    "a variable of Python's": "SELECT * FROM store",
    "the rows on their way": "SELECT * FROM rows_that_may_be_read",
    "the settings of the process": "SELECT getenv('HOME')",
    "a table function of Arrow's": "SELECT * FROM arrow_scan(1, 2, 3)",
    "another statement": "ATTACH '{path}' AS stolen (READ_ONLY)",
    "two statements": "SELECT 1; SELECT * FROM main.events",
    "a copy": "COPY (SELECT * FROM events) TO '{folder}/stolen.csv'",
    "an extension": "LOAD sqlite",
    "an unlock": "SET enable_external_access = true",
    "a pragma": "PRAGMA enable_profiling",
    "describe": "DESCRIBE transitions",
    "summarise": "SUMMARIZE transitions",
    "a summary as a table": "SELECT * FROM (SUMMARIZE main.transitions)",
    "a plan that is run": "EXPLAIN ANALYZE SELECT * FROM main.transitions",
}


@pytest.mark.slow
async def test_no_way_of_asking_leads_to_the_rows_of_others(reader: Reader, tmp_path: Path) -> None:
    for name, attempt in ATTEMPTS.items():
        sql = attempt.replace("{path}", str(tmp_path / "store.duckdb")).replace("{folder}", str(tmp_path))
        answer = await reader.ask(sql)
        assert answer.status_code in (200, 400), (name, answer.text)
        told = answer.text
        if answer.status_code == 200:
            told = str(pa.ipc.open_stream(answer.content).read_all().to_pylist())
        for word in ("other/cara", "acmeX", "near-0", *(() if SECRET in sql else (SECRET,))):
            assert word not in told, (name, told)
    assert not (tmp_path / "stolen.csv").exists()


async def test_the_attempts_that_tell_by_errors_would_tell_one_who_may_read_all(reader: Reader) -> None:
    told = await reader.ask(ATTEMPTS["an error in a case"], None)
    assert (told.status_code, SECRET in told.text) == (400, True)
    assert (await reader.rows(ATTEMPTS["an error in a case"]))[0][
        "count_star()"
    ] == 6  # two steps and an outcome, twice


async def test_such_a_token_is_refused_where_all_rows_are_counted(reader: Reader) -> None:
    assert await reader.rows("SELECT 1 AS one") == [{"one": 1}]
    for path in ("/status", "/metrics"):
        refused = await reader.get("GET", path, ACME)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "some_rows_only")


@pytest.mark.slow
async def test_more_rows_than_there_is_memory_for_are_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    settings = StoreSettings(path=tmp_path / "store.duckdb")
    store = Store.open(settings, HOLDOUT, KAFKA)
    log = Log(store)
    for number in range(20):
        log.publish(*of("acme/ann", f"large-{number}", action=f"{number}".join(map(str, range(200_000)))))
    little = LimitedQueries(store, settings.model_copy(update={"memory": "30MB"}))
    api = build_api(store, little, access=Access(home=tmp_path / "home"))
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        reader = Reader(client, tmp_path / "home")
        refused = await reader.ask("SELECT count(*) FROM transitions")
        assert (refused.status_code, "store.memory" in refused.text) == (400, True)
        assert len(await reader.rows("SELECT DISTINCT episode_id FROM events")) == 20
    store.close()
