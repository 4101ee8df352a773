"""The subscriber's pages: languages, words, escaping."""

import re
from html.parser import HTMLParser
from string import Formatter

import pytest

from suppression.page import CONTENT_SECURITY_POLICY, LANGUAGES, Description, Pages, Subscription, choose_language, mask

AT = 1_790_000_000.0
DESCRIPTION = Description("ACME <Shop>", 'News & "more"', "b•••@example.com")
WIDER = ["tenant", "group", "everything"]


class Outline(HTMLParser):
    """The tags, ids and outgoing references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "input", "!doctype"}:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"href", "src", "action", "style"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def every_page(pages: Pages) -> list[str]:
    return [
        pages.ask(DESCRIPTION, ["list", "tenant", "everything"]),
        pages.ask(None, ["tenant", "everything"]),
        pages.ask(DESCRIPTION, ["list", "tenant", "group", "everything"]),
        pages.done("list", AT, already=False, more=["tenant", "everything"], undo=True, description=DESCRIPTION),
        pages.done("everything", AT, already=True, more=[], undo=False, description=None),
        pages.undone(AT), pages.kept(), pages.failed("list"), pages.failed(), pages.unknown(), pages.saved(AT),
        pages.preferences(DESCRIPTION, [Subscription(9, "News <b>", True), Subscription(10, "Offers", False)], WIDER),
        pages.preferences(None, [], WIDER),
    ]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_fields(language: str) -> None:
    def fields(text: str) -> list[str | None]:
        return [name for _, name, _, _ in Formatter().parse(text) if name is not None]

    assert {name: fields(text) for name, text in LANGUAGES[language].items()} == {
        name: fields(text) for name, text in LANGUAGES["en"].items()
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_well_formed_and_asks_nobody_for_anything(language: str) -> None:
    for text in every_page(Pages(language)):
        outline = Outline()
        outline.feed(text)
        assert outline.open == []
        assert outline.references == []
        assert outline.tags.count("h1") == 1
        assert outline.tags.count("main") == 1
        assert not {"script", "img", "link", "iframe"} & set(outline.tags)
        assert f'<html lang="{language}">' in text
        assert "$" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)


def test_what_comes_from_outside_is_escaped() -> None:
    text = Pages("en").ask(DESCRIPTION, ["list"])
    assert "ACME &lt;Shop&gt;" in text
    assert "News &amp; &quot;more&quot;" in text
    assert "News &lt;b&gt;" in Pages("en").preferences(None, [Subscription(9, "News <b>", True)], WIDER)


def test_the_policy_names_the_style_by_its_hash() -> None:
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/]{43}='", CONTENT_SECURITY_POLICY)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"), ("de", "de"), ("de-AT,en;q=0.5", "de"), ("it,fr;q=0.3,es;q=0.9", "es"), ("FR-ca", "fr"),
        ("it", "en"), ("de;q=0", "en"), ("de;q=x,fr;q=0.1", "fr"), ("*", "en"), (",;,;q=,", "en"), ("es;q=9", "es"),
        ("en;q=0.8,de;q=0.8", "en"), ("x" * 100_000, "en"),
    ],
)  # fmt: skip
def test_the_language_is_the_browser_s(accepted: str, language: str) -> None:
    assert choose_language(accepted) == language


@pytest.mark.parametrize(
    ("address", "masked"),
    [("bob@example.com", "b•••@example.com"), ('"a@b"@example.com', '"•••@example.com'), ("nonsense", "•••")],
)
def test_an_address_is_masked(address: str, masked: str) -> None:
    assert mask(address) == masked


def test_a_description_does_not_show_its_address() -> None:
    assert "example.com" not in repr(DESCRIPTION)
