"""What the author of an answer wrote, under the ways in which mail programs quote."""

import pytest

from bounce.mime import parse
from bounce.own_words import own_text, without_quotes

WANTED = "Please take me off this list."
QUOTE = "News of the week\nTo unsubscribe, open https://example.com/u\n-- \nACME"
QUOTED = "\n".join(f"> {line}" for line in QUOTE.split("\n"))

PLAIN = {
    "gmail": f"{WANTED}\n\nOn Mon, Feb 3, 2025 at 10:11 AM ACME <news@example.com> wrote:\n\n{QUOTED}\n",
    "gmail wrapped": f"{WANTED}\n\nOn Mon, Feb 3, 2025 at 10:11 AM ACME and\n<news@example.com> wrote:\n\n{QUOTED}\n",
    "gmail de": f"{WANTED}\n\nAm Mo., 3. Feb. 2025 um 10:11 Uhr schrieb ACME <news@example.com>:\n\n{QUOTED}\n",
    "gmail fr": f"{WANTED}\n\nLe lun. 3 févr. 2025 à 10:11, ACME <news@example.com> a écrit :\n\n{QUOTED}\n",
    "gmail es": f"{WANTED}\n\nEl lun, 3 feb 2025 a las 10:11, ACME (<news@example.com>) escribió:\n\n{QUOTED}\n",
    "thunderbird": f"{WANTED}\n\nOn 03.02.25 10:11, ACME wrote:\n{QUOTED}\n",
    "below the quotation": f"ACME wrote:\n{QUOTED}\n\n{WANTED}\n\n-- \nAnna\n",
    "apple mail": f"{WANTED}\n\n> On 3. Feb 2025, at 10:11, ACME <news@example.com> wrote:\n> \n{QUOTED}\n",
    "outlook": (
        f"{WANTED}\n\n________________________________\nFrom: ACME <news@example.com>\n"
        f"Sent: Monday, February 3, 2025 10:11 AM\nTo: anna@example.net\nSubject: News\n\n{QUOTE}\n"
    ),
    "outlook without a line": (
        f"{WANTED}\n\nVon: ACME <news@example.com>\nGesendet: Montag, 3. Februar 2025 10:11\n"
        f"An: anna@example.net\nBetreff: News\n\n{QUOTE}\n"
    ),
    "outlook fr": f"{WANTED}\n\nDe : ACME\nEnvoyé : lundi 3 février 2025 10:11\nÀ : Anna\nObjet : News\n\n{QUOTE}\n",
    "outlook es, bold": f"{WANTED}\n\n*De:* ACME\n*Enviado el:* lunes, 3\n*Para:* Anna\n*Asunto:* News\n\n{QUOTE}\n",
    "original message": f"{WANTED}\n\n-----Original Message-----\nFrom: ACME\n\n{QUOTE}\n",
    "german rule": f"{WANTED}\n\n-----Ursprüngliche Nachricht-----\nirgendwas\n{QUOTE}\n",
    "zoho": f"{WANTED}\n\n---- On Mon, 03 Feb 2025 10:11 ACME wrote ----\n{QUOTE}\n",
    "signature": f"{WANTED}\n-- \nAnna Example\nunsubscribe specialist\n",
    "nothing quoted": WANTED,
    "crlf": f"{WANTED}\r\n\r\nOn 03.02.25 10:11, ACME wrote:\r\n> x\r\n",
}


@pytest.mark.parametrize("program", PLAIN)
def test_plain_text_is_parted(program: str) -> None:
    message = f"Subject: Re: News\nContent-Type: text/plain; charset=utf-8\n\n{PLAIN[program]}"
    assert own_text(parse(message.encode())) == WANTED


HTML = {
    "gmail": (
        f'<div dir="ltr">{WANTED}</div><br><div class="gmail_quote"><div class="gmail_attr">On Mon, Feb 3, 2025 at'
        f' 10:11 ACME &lt;<a href="mailto:news@example.com">news@example.com</a>&gt; wrote:<br></div>'
        f'<blockquote class="gmail_quote">{QUOTE}<blockquote>older</blockquote> unsubscribe</blockquote></div>'
    ),
    "thunderbird": f'<p>{WANTED}</p><div class="moz-cite-prefix">On 03.02.25 10:11, ACME wrote:<br></div>'
    f'<blockquote type="cite">{QUOTE}</blockquote>',
    "below the quotation": f"ACME wrote:<br><blockquote type=cite>{QUOTE}</blockquote><p>{WANTED}</p>",
    "outlook.com": f'<div>{WANTED}</div><div id="appendonsend"></div><div id="divRplyFwdMsg">From: ACME</div>{QUOTE}',
    "outlook": (
        f"<p>{WANTED}</p><div style='border-top:solid #E1E1E1 1.0pt'><p><b>From:</b> ACME<br><b>Sent:</b> Monday<br>"
        f"<b>To:</b> Anna<br><b>Subject:</b> News</p></div><p>{QUOTE}</p>"
    ),
    "yahoo": f'<div>{WANTED}</div><div class="yahoo_quoted"><div>On Monday, ACME wrote:</div><div>{QUOTE}</div></div>',
    "never closed": f"<p>{WANTED}</p><blockquote>{QUOTE}",
}


@pytest.mark.parametrize("program", HTML)
def test_html_is_parted(program: str) -> None:
    message = f"Subject: Re: News\nContent-Type: text/html; charset=utf-8\n\n{HTML[program]}"
    assert " ".join(own_text(parse(message.encode())).split()) == WANTED


def test_html_stands_in_only_where_there_is_no_plain_text() -> None:
    parts = "--b\nContent-Type: {}\n\n{}\n"
    head = 'Content-Type: multipart/alternative; boundary="b"\n\n'
    html = parts.format("text/html", "<p>of the HTML</p>") + "--b--\n"
    assert own_text(parse((head + parts.format("text/plain", "of the text") + html).encode())) == "of the text"
    assert own_text(parse((head + parts.format("text/plain", "") + html).encode())) == "of the HTML"


def test_attachments_are_not_the_author_s_words() -> None:
    message = (
        'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\nSee below.\n'
        "--b\nContent-Type: text/plain\nContent-Disposition: attachment\n\nunsubscribe\n"
        "--b\nContent-Type: message/rfc822\n\nSubject: x\n\nunsubscribe\n--b--\n"
    )
    assert own_text(parse(message.encode())) == "See below."


@pytest.mark.parametrize("text", ["My numbers:\n1\n2", "From: me\nwith love", "a - b", "Two things:"])
def test_what_only_looks_like_a_quotation_stays(text: str) -> None:
    assert without_quotes(text) == text
