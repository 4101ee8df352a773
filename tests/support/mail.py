"""A renderer and its arguments, as the tests of content use them."""

from config.keyring import Keyring
from mta.render import Identity, Rendered, Renderer, Template
from mta.signing import SigningKey
from suppression.digest import MessageClass
from suppression.tokens import Tokens

NOW = 1_750_000_000.0
IDENTITY = Identity("mx.example.net", "mail.example.net", "https://u.example.net", "heed")
TOKENS = Tokens(Keyring({1: bytes(range(32))}))
RENDERER = Renderer(IDENTITY, TOKENS, lambda: NOW, strip=frozenset((b"x-campaign",)))

PLAIN = (
    b"From: Shop <news@example.com>\r\nTo: someone@example.org\r\nSubject: Spring\r\n"
    b"Message-ID: <1@example.com>\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000\r\n\r\nHello.\r\n"
)


def template_of(
    raw: bytes,
    *keys: SigningKey,
    message_class: MessageClass = MessageClass.CAMPAIGN,
    renderer: Renderer = RENDERER,
    campaign_name: str = "spring",
    queue_id: str = "01ABC",
    answers_wanted: bool = False,
) -> Template:
    return renderer.prepare(
        raw,
        tenant_id=1,
        tenant_name="acme",
        list_id=2,
        list_name="news.example.com",
        campaign_id=3,
        campaign_name=campaign_name,
        message_class=message_class,
        message_id=4,
        queue_id=queue_id,
        received_at=NOW,
        keys=keys,
        answers_wanted=answers_wanted,
    )


def rendered(
    raw: bytes,
    *keys: SigningKey,
    message_class: MessageClass = MessageClass.CAMPAIGN,
    person: int = 5,
    answers_wanted: bool = False,
) -> Rendered:
    template = template_of(raw, *keys, message_class=message_class, answers_wanted=answers_wanted)
    return RENDERER.render(template, person)
