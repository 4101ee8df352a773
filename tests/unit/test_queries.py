"""Queries kept in .sql files: each has a name and says its purpose. Migrations: only what is known is built upon."""

import pytest

from config.database import Migration, MigrationError, Queries, _parse_queries, load_queries, migrations, pending

GOOD = """-- A file may open with a word about itself.

-- name: claim
-- Take what is due.
-- A second line of purpose.
SELECT 1
  FROM recipient;

-- name: finish
-- Remove what is final.
DELETE FROM recipient
-- a comment inside
 WHERE true;
"""


def test_a_query_is_its_sql_without_comments() -> None:
    queries = Queries("mta/queue.sql", _parse_queries(GOOD, "queue.sql"))
    assert queries.claim == "SELECT 1\n  FROM recipient"
    assert queries["finish"] == "DELETE FROM recipient\n WHERE true"
    assert list(queries) == ["claim", "finish"]
    assert len(queries) == 2


def test_an_unknown_query_names_its_file() -> None:
    with pytest.raises(AttributeError, match=r"mta/queue.sql has no query named 'clam'"):
        _ = Queries("mta/queue.sql", _parse_queries(GOOD, "queue.sql")).clam


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a\n-- Why.\nSELECT 1\n-- name: a\n-- Why.\nSELECT 2", "'a' is there twice"),
        ("-- name: a-b\n-- Why.\nSELECT 1", "is no identifier"),
        ("-- name: a\nSELECT 1", "doesn't say its purpose"),
        ("-- name: a\n--\nSELECT 1", "doesn't say its purpose"),
        ("-- name: a\n-- Why.\n\n", "is empty"),
        ("SELECT 1;\n-- name: a\n-- Why.\nSELECT 1", "before the first"),
    ],
)
def test_a_file_that_is_not_as_agreed_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(KeyError, match=complaint):
        _parse_queries(text, "x.sql")


def test_the_files_of_a_package_are_found() -> None:
    assert load_queries("config", "database.sql").lock_migrations == "SELECT pg_advisory_xact_lock($1)"


def test_migrations_are_numbered_from_one() -> None:
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


STEPS = [Migration(1, "one", "CREATE TABLE a ()"), Migration(2, "two", "CREATE TABLE b ()")]


def test_only_what_is_missing_is_pending() -> None:
    assert pending(STEPS, {}) == STEPS
    assert pending(STEPS, {1: ("one", STEPS[0].sha256)}) == STEPS[1:]
    assert pending(STEPS, {step.number: (step.name, step.sha256) for step in STEPS}) == []


def test_a_changed_or_newer_migration_is_refused() -> None:
    with pytest.raises(MigrationError, match="0001_one is not the one"):
        pending(STEPS, {1: ("one", "0" * 64)})
    with pytest.raises(MigrationError, match="0003_three, which is newer"):
        pending(STEPS, {3: ("three", "0" * 64)})
