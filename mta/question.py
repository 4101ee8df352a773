"""The question to somebody whose answer may mean an unsubscribe: one short mail with the link. Pure.

It can start no loop: it has the null reverse-path, says that it is automatic (RFC 3834 §3.1), and an answer to it that
is no clear unsubscribe goes to the tenant like any other.
"""

import re
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP

from suppression.page import DEFAULT_LANGUAGE, LANGUAGES

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")


def compose(*, sender: str, reply_to: str, to: str, link: str, message_id: str, language: str) -> bytes:
    """The mail with CRLF line ends. `sender`: the tenant's name; `reply_to`, `to`: addresses in ASCII; `message_id`: of
    what is answered. ValueError for an address that can't stand in a field.
    """
    texts = LANGUAGES.get(language) or LANGUAGES[DEFAULT_LANGUAGE]
    mail = EmailMessage(policy=SMTP)
    mail["From"] = Mailbox(sender, addr_spec=reply_to)
    mail["To"] = Mailbox(addr_spec=to)
    mail["Subject"] = texts["question_subject"]
    mail["Auto-Submitted"] = "auto-replied"
    mail["X-Auto-Response-Suppress"] = "All"
    if _MESSAGE_ID.fullmatch(message_id):
        mail["In-Reply-To"] = mail["References"] = message_id
    mail.set_content(texts["question_text"].format(sender=sender) + f"\n\n{link}\n\n{texts['question_word']}\n")
    return mail.as_bytes()
