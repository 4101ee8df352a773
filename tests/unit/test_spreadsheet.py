"""Lists as people have them: every usual column name, delimiter and flaw."""

from pathlib import Path

import pytest

from suppression.digest import Kind
from suppression.prove import digest_text
from suppression.spreadsheet import Row, SpreadsheetError, layout_of, rows
from tests.support.suppressions import DIGEST

BOB, EVA = DIGEST.person("bob@example.com"), DIGEST.person("eva@example.com")


def read(path: Path, data: bytes | str, offset: int = 0) -> list[Row]:
    (path / "list.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return list(rows(path / "list.csv", DIGEST, offset))


def persons(found: list[Row]) -> list[int | None]:
    return [row.person for row in found]


@pytest.mark.parametrize(
    "text",
    [
        "email\nbob@example.com\neva@example.com\n",
        "Email Address,First Name\nbob@example.com,Bob\neva@example.com,Eva",
        "id;E-Mail;name\r\n1;bob@example.com;Bob\r\n2;eva@example.com;Eva\r\n",
        "name\te_mail\nBob\tbob@example.com\nEva\teva@example.com\n",
        '"EMAIL","unsub time"\n"Bob@Example.com","2020"\n"eva@example.com","2021"\n',
        "bob@example.com\neva@example.com\n",
        "1,bob@example.com\n2,eva@example.com\n",
        "\ufeffemail\nbob@example.com\n\n\neva@example.com\n\n",
        "\ufeffbob@example.com\neva@example.com",
        'email,note\nbob@example.com,"two\nlines, quoted"\neva@example.com,\n',
        "E-Mail-Adresse|x\nbob@example.com|1\neva@example.com|1\n",
        "Correo electrónico,email\n,bob@example.com\n,eva@example.com\n",
    ],
)
def test_addresses_are_found_in_every_usual_form(tmp_path: Path, text: str) -> None:
    assert persons(read(tmp_path, text)) == [BOB, EVA]


def test_rows_that_name_nobody_are_rows(tmp_path: Path) -> None:
    data = b"email,x\nnobody,1\n,2\nbob@example.com,3\n\xff\xfe@example.com,4\n" + b"x" * 200_000 + b"\nshort\n"
    assert [person for person in persons(read(tmp_path, data)) if person is not None] == [BOB]


def test_a_quote_that_is_never_closed_costs_one_row_at_most(tmp_path: Path) -> None:
    text = 'email,x\n"broken@example.com,1\n' + "".join(f"p{n}@example.com,1\n" for n in range(100))
    found = persons(read(tmp_path, text))
    assert set(found) >= {DIGEST.person(f"p{n}@example.com") for n in range(100)}
    assert len(found) == 101


@pytest.mark.parametrize("text", ["", "\n", "name,city\nBob,Berlin\n", "id\n1\n"])
def test_a_file_without_addresses_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpreadsheetError, match="no column of addresses"):
        read(tmp_path, text)


def test_the_kind_that_a_row_states_is_known(tmp_path: Path) -> None:
    text = "email,reason\nbob@example.com,BOUNCE\neva@example.com,Spam Report\nbob@example.com,whatever\n"
    assert [row.kind for row in read(tmp_path, text)] == [Kind.HARD_BOUNCE, Kind.COMPLAINT, None]


def test_reading_goes_on_where_it_was_left(tmp_path: Path) -> None:
    text = 'email,note\nbob@example.com,"two\nlines"\neva@example.com,\nbob@example.com,\n'
    whole = read(tmp_path, text)
    for done in range(len(whole)):
        assert read(tmp_path, text, whole[done].offset) == whole[done + 1 :]


def test_digests_of_an_export_are_persons(tmp_path: Path) -> None:
    text = f"digest,kind\n{digest_text(BOB)},complaint\nxyz,manual\n"
    assert read(tmp_path, text)[0][:2] == (BOB, Kind.COMPLAINT)
    assert persons(read(tmp_path, text)) == [BOB, None]


def test_no_error_quotes_an_address() -> None:
    with pytest.raises(SpreadsheetError) as caught:
        layout_of(b"name of bob at example.com\n")
    assert "@" not in str(caught.value)
