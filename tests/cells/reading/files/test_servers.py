"""A URL comes from the environment, and appears nowhere."""

import sys
from typing import Any

import pytest

import bayes_hte as hte
from bayes_hte import ArgumentError, DataError, PlanError
from bayes_hte.cells import DataSource, from_rows

ASKED: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["plan"]}
SOURCE = DataSource(connection="WAREHOUSE_URL", query="select * from visits")
SECRET = "postgresql://ann:hunter2@localhost:1/shop"  # noqa: S105, nobody's


@pytest.mark.parametrize("url", [SECRET, "nonsense://ann:hunter2@x/y", "ann:hunter2@x", "host=x password=hunter2"])
def test_a_connection_that_fails_says_nothing_of_its_url(url, monkeypatch):
    pytest.importorskip("ibis")
    monkeypatch.setenv("WAREHOUSE_URL", url)
    with pytest.raises(DataError) as raised:
        from_rows(SOURCE, **ASKED)
    assert "WAREHOUSE_URL" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    with pytest.raises(DataError, match="the environment variable WAREHOUSE_URL is not set; set it"):
        from_rows(SOURCE, **ASKED)


@pytest.mark.parametrize(
    ("url", "package"), [(SECRET, r"bayes-hte\[postgres\]"), ("mysql://a:b@c/d", r"ibis-framework\[mysql\]")]
)
def test_a_missing_client_says_what_to_install(url, package, monkeypatch):
    monkeypatch.setenv("WAREHOUSE_URL", url)
    monkeypatch.setitem(sys.modules, "ibis", None)
    with pytest.raises(DataError, match=f"needs a client; pip install '{package}'"):
        from_rows(SOURCE, **ASKED)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"path": "a.csv", "connection": "B"}, {"path": "a.db", "table": "t", "query": "select 1"},
        {"connection": SECRET, "query": "select 1"}, {"connection": "B"}, {"path": 7}, {"path": "a.db", "table": ""},
    ],
)  # fmt: skip
def test_a_source_that_makes_no_sense_is_refused_without_showing_a_url(options):
    with pytest.raises(ArgumentError) as raised:
        DataSource(**options)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("table", ["data", "covariates", None])
def test_a_url_with_a_password_in_a_plan_is_refused_and_not_shown(table, tmp_path):
    data: dict[str, Any] = {"path": "a.csv", "outcome": "y", "arm": "a", "control": "c", "segments": "s"}
    content: dict[str, Any] = {"title": 3, "model": "conversion", "data": data}
    match table:
        case "data":
            data["path"] = SECRET
        case "covariates":
            content["covariates"] = {"path": SECRET, "columns": "x"}
        case None:
            content["source"] = f"from {SECRET}"
    with pytest.raises(PlanError, match="a URL with a password stands in the plan") as raised:
        hte.Plan(**content)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("value", [SECRET, "postgresql://db/shop", 5])
def test_a_connection_that_is_a_url_itself_is_refused_and_not_shown(value):
    data = {"connection": value, "query": "select 1", "outcome": "y", "arm": "a", "control": "c", "segments": "s"}
    with pytest.raises(PlanError) as raised:
        hte.Plan(title="A test", model="conversion", data=data)
    assert "postgresql" not in str(raised.value)


@pytest.mark.slow
def test_a_server_carries_out_one_select_and_nothing_that_writes(postgres, monkeypatch):
    with postgres.con.cursor() as cursor:
        cursor.execute("create table spending (plan text, arm text, spent double precision)")
        cursor.execute(
            "insert into spending select 'p' || i % 3, case i % 2 when 0 then 'old' else 'new' end, i % 7 "
            "from generate_series(1, 300) i"
        )
        cursor.execute(
            "create function sneak() returns int language plpgsql as "
            "$$ begin insert into spending values ('x', 'old', 1); return 1; end $$"
        )
        postgres.con.commit()
    host = postgres.con.info.host
    monkeypatch.setenv("WAREHOUSE_URL", f"postgresql://tests@/postgres?host={host}")

    def count(query: str) -> int:
        return int(from_rows(DataSource(connection="WAREHOUSE_URL", query=query), **ASKED)["n"].sum())

    assert count("with v as (select * from spending) select * from v where spent > 0;") == 258
    assert int(from_rows(DataSource(connection="WAREHOUSE_URL", table="spending"), **ASKED)["n"].sum()) == 300
    for query in (
        "delete from spending returning *", "select * into more from spending", "select 1; drop table spending",
        "with d as (delete from spending returning *) select * from d", "copy spending to program 'ls'", "selec",
    ):  # fmt: skip
        with pytest.raises(DataError, match="the query is not one SELECT"):
            count(query)
    with pytest.raises(DataError, match="read-only transaction"):
        count("select *, sneak() from spending")
    with pytest.raises(DataError, match='column "nope" does not exist'):
        count("select nope from spending")
    assert count("select * from spending") == 300
