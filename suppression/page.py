"""The subscriber's pages as text: language, words, and HTML that asks nobody else for anything.

Pure. Whatever comes from outside is escaped here and nowhere else. Without script, without images, one style that the
content security policy names by its hash.
"""

import base64
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from importlib import resources
from string import Template
from typing import Final


def _read(name: str) -> str:
    return resources.files("suppression").joinpath(name).read_text("utf-8")


LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = tomllib.loads(_read("texts.toml"))
DEFAULT_LANGUAGE: Final = "en"

_STYLE: Final = _read("page.css")
_PAGE: Final = Template(_read("page.html"))
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Description:
    """What a page may say about a token. `address` is masked already; empty where not known."""

    sender: str = ""
    list_name: str = ""
    address: str = field(default="", repr=False)
    partners: str = ""
    """The other senders of its group, where it is in one."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A list on the preference page, and whether its mail goes on."""

    list_id: int
    name: str
    kept: bool


def mask(address: str) -> str:
    """An address that its owner knows again, and nobody else learns: first character and domain."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}•••@{domain}" if local else "•••"


def choose_language(accepted: str) -> str:
    """The best of our languages for an Accept-Language field (RFC 9110 §12.5.4); English when none fits."""
    best, best_quality = DEFAULT_LANGUAGE, 0.0
    for part in accepted[:500].split(","):
        tag, _, parameter = part.partition(";")
        language = tag.strip().lower().partition("-")[0]
        quality = _quality(parameter)
        if language in LANGUAGES and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0


class Pages:
    """Pages in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = LANGUAGES[language]

    def ask(self, description: Description | None, choices: Sequence[str], preferences: str = "") -> str:
        """What should stop? Nothing has happened yet. `choices`: of list, tenant, group and everything; the first one
        foremost."""
        link = f'<p><a href="{escape(preferences)}">{self._text("link_preferences")}</a></p>' if preferences else ""
        note = "note_group" if "group" in choices else "note_everything"
        return self._page(
            "title",
            f"<h1>{self._text('ask_heading')}</h1>",
            self._about(description),
            f"<p>{self._text('ask_text')}</p>",
            self._buttons([(choice, f"button_{choice}") for choice in choices], first=True),
            f'<p class="note">{self._text("note_list")} {self._text(note)}</p>',
            link,
        )

    def done(
        self, choice: str, at: float, *, already: bool, more: Sequence[str], undo: bool, description: Description | None
    ) -> str:
        """It is in force since `at`; `more`: wider choices that are left."""
        wider = self._buttons([(name, f"button_{name}") for name in more])
        back = self._buttons([(f"undo-{choice}", "button_undo")])
        return self._page(
            "title",
            f'<div role="status"><h1>{self._text("done_heading")}</h1>',
            f"<p>{self._text(f'done_{choice}')}</p>",
            f"<p>{self._at('already_at' if already else 'done_at', at)}</p></div>",
            self._about(description),
            f"<h2>{self._text('more_heading')}</h2>{wider}" if more else "",
            f"<h2>{self._text('undo_heading')}</h2><p>{self._text('undo_text')}</p>{back}" if undo else "",
        )

    def undone(self, at: float) -> str:
        """A consent was recorded, and the unsubscribe is lifted."""
        return self._message("undone_heading", self._at("undone_text", at))

    def kept(self) -> str:
        """A consent was recorded, and there was nothing for it to lift."""
        return self._message("kept_heading", self._text("kept_text"))

    def failed(self, choice: str = "") -> str:
        """Nothing was recorded; the button asks for the same again."""
        retry = self._buttons([(choice, "button_retry")], first=True) if choice else ""
        return self._message("failed_heading", self._text("failed_text"), retry, role="alert")

    def unknown(self) -> str:
        """The token is none of ours."""
        return self._message("unknown_heading", self._text("unknown_text"))

    def preferences(
        self, description: Description | None, subscriptions: Sequence[Subscription], wider: Sequence[str]
    ) -> str:
        """Every list that ever sent to this person, with what goes on; and the wider choices."""
        return self._page(
            "preferences_heading",
            f"<h1>{self._text('preferences_heading')}</h1>",
            self._about(replace(description, list_name="") if description else None),
            self._elections(subscriptions) if subscriptions else f"<p>{self._text('preferences_none')}</p>",
            f"<h2>{self._text('more_heading')}</h2>",
            self._buttons([(choice, f"button_{choice}") for choice in wider]),
        )

    def saved(self, at: float) -> str:
        """The elections of the preference page are in force."""
        return self._message("saved_heading", self._at("saved_text", at))

    def _elections(self, subscriptions: Sequence[Subscription]) -> str:
        boxes = "".join(
            f'<label><input type="checkbox" name="keep" value="{item.list_id}"{" checked" if item.kept else ""}>'
            f"<span>{escape(item.name)}</span></label>"
            for item in subscriptions
        )
        shown = ",".join(str(item.list_id) for item in subscriptions)
        return (
            f"<p>{self._text('preferences_text')}</p>"
            f'<form method="post"><input type="hidden" name="shown" value="{shown}">'
            f"<fieldset><legend>{self._text('preferences_legend')}</legend>{boxes}</fieldset>"
            f'<button class="first" name="choice" value="save">{self._text("button_save")}</button></form>'
        )

    def _message(self, heading: str, *parts: str, role: str = "status") -> str:
        text, *rest = parts
        return self._page("title", f'<div role="{role}"><h1>{self._text(heading)}</h1><p>{text}</p></div>', *rest)

    def _about(self, description: Description | None) -> str:
        if description is None:
            return ""
        known = [
            ("about_sender", description.sender),
            ("about_partners", description.partners),
            ("about_list", description.list_name),
            ("about_address", description.address),
        ]
        rows = "".join(f"<dt>{self._text(name)}</dt><dd>{escape(value)}</dd>" for name, value in known if value)
        return f"<dl>{rows}</dl>" if rows else ""

    def _buttons(self, buttons: Sequence[tuple[str, str]], *, first: bool = False) -> str:
        made = [
            f'<button{" class=" + chr(34) + "first" + chr(34) if first and number == 0 else ""} name="choice"'
            f' value="{escape(value)}">{self._text(text)}</button>'
            for number, (value, text) in enumerate(buttons)
        ]
        return f'<form method="post">{"".join(made)}</form>'

    def _at(self, text: str, at: float) -> str:
        moment = datetime.fromtimestamp(at, UTC)
        shown = f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'
        return self._text(text).format(time=shown)

    def _text(self, name: str) -> str:
        return escape(self._texts[name])

    def _page(self, title: str, *body: str) -> str:
        return _PAGE.substitute(
            lang=self.language, title=self._text(title), style=_STYLE, body="\n".join(part for part in body if part)
        )
