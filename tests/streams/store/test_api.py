"""Queries take named parameters, so that no one has to quote a value; a wrong one is refused with its name."""

import httpx
import pytest

from streams.errors import StoreError
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore

TASK = TASKS[Split.TRAIN][0]
QUOTED = "o'brien'); DROP TABLE events; --"


async def ask(served: ServedStore, sql: str, **parameters: Parameter) -> list[object]:
    async with StoreClient(served.url) as client:
        return list((await client.query(sql, parameters)).column(0).to_pylist())


async def test_a_value_is_found_as_it_is_whatever_quotes_are_in_it(served_store: ServedStore) -> None:
    log = Log(served_store.store)
    log.publish(*episode(QUOTED, TASK), *episode("other", TASK, action="run"))
    found = "SELECT DISTINCT episode_id FROM transitions WHERE principal = $principal"
    assert await ask(served_store, found, principal=QUOTED) == [QUOTED]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text", "VARCHAR"),
        (7, "INTEGER"),
        (2**40, "BIGINT"),
        (0.5, "DOUBLE"),
        (True, "BOOLEAN"),
        (None, '"NULL"'),
        ([1, 2], "INTEGER[]"),
        (["a", "b"], "VARCHAR[]"),
    ],
)
async def test_scalars_of_json_and_lists_of_them_arrive_with_their_type(
    served_store: ServedStore, value: Parameter, kind: str
) -> None:
    assert await ask(served_store, "SELECT typeof($value)", value=value) == [kind]
    assert await ask(served_store, "SELECT $value", value=value) == [value]


async def test_a_list_is_a_set_to_look_in(served_store: ServedStore) -> None:
    assert await ask(served_store, "SELECT n FROM range(9) AS t(n) WHERE n IN $wanted", wanted=[2, 5, 11]) == [2, 5]
    assert await ask(served_store, "SELECT n FROM range(9) AS t(n) WHERE n IN $wanted", wanted=[]) == []


@pytest.mark.parametrize(
    ("sql", "parameters", "error"),
    [
        ("SELECT $a", {}, "names the parameters $a and was given none"),
        ("SELECT $a", {"a": 1, "b": 2}, "names the parameters $a and was given $a, $b"),
        ("SELECT 1", {"a": 1}, "names the parameters none and was given $a"),
        ("SELECT 1 WHERE 1::INTEGER = $a", {"a": "word"}, "the query failed: Conversion Error"),
        ("SELECT $a", {"a": 2**200}, "the query failed"),
        ("SELECT * FROM read_csv($a)", {"a": "/etc/passwd"}, "the query failed: Permission Error"),
        ("DELETE FROM events WHERE kind = $a", {"a": "step"}, "exactly one SELECT"),
    ],
)
async def test_wrong_parameters_are_refused_with_their_names(
    served_store: ServedStore, sql: str, parameters: dict[str, Parameter], error: str
) -> None:
    async with httpx.AsyncClient(base_url=served_store.url) as http:
        answer = await http.post("/query", json={"sql": sql, "parameters": parameters})
    assert answer.status_code == 400
    assert error in answer.text
    with pytest.raises(StoreError):
        await ask(served_store, sql, **parameters)


async def test_a_request_without_parameters_is_answered(served_store: ServedStore) -> None:
    async with httpx.AsyncClient(base_url=served_store.url) as http:
        answer = await http.post("/query", json={"sql": "SELECT 1"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{",
            b"[",
            b"\xff",
            rb'{"sql": "SELECT \ud800"}',
            rb'{"sql": "SELECT $a", "parameters": {"a": "\udfff"}}',
        ),
        *(b'{"sql": "SELECT $a", "parameters": {"a": %s}}' % value for value in (b"NaN", b"1e999", b"[Infinity]")),
        b'{"sql": "SELECT $a", "parameters": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"sql": "SELECT 1", "sql": "SELECT 2"}',
    ],
)
async def test_a_body_that_is_not_strictly_json_is_refused(served_store: ServedStore, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=served_store.url) as http:
        answer = await http.post("/query", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        *(("SELECT $a", {"a": value}) for value in (10**30, 10**400, -(10**30), [1, "a"], [None, True], ["a", 10**30])),
        *((sql, {}) for sql in ("", ";", "SELECT", "SELECT '\0'", "(" * 5000 + "1" + ")" * 5000, "SELECT 1; SELECT 2")),
        *(("SELECT 1", {name: 1}) for name in ("", "a b", "\0")),
        *(("SELECT $a", {"a": value}) for value in ({"b": 1}, [[1]], "\0", "x" * 100_000)),
    ],
)
async def test_no_query_makes_the_store_fail(
    served_store: ServedStore, sql: str, parameters: dict[str, object]
) -> None:
    async with httpx.AsyncClient(base_url=served_store.url) as http:
        answer = await http.post("/query", json={"sql": sql, "parameters": parameters})
        assert answer.status_code in (200, 400, 422), answer.text
        assert answer.is_success or answer.json()["error"]["type"] == "invalid_request_error"
        assert (await http.get("/query")).json()["error"]["code"] == "method_not_allowed"
