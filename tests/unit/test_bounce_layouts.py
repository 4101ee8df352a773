"""Notices as many makes of software write them, in many languages: whom each is about, found by its layout."""
# ruff: noqa: E501 - a line of a notice is one line, in its own script

import pytest

from bounce.outcome import BounceClass
from bounce.reader import read
from bounce.reading import Kind

ORIGINAL = "Received: from a.example.com by b.example.com; Mon, 2 Mar 2026 10:00:00 +0000\nMessage-ID: <1@example.com>\nFrom: news@example.com\nTo: box@example.org\nSubject: News\n\nHello bob@example.net\n"


def notice(sender: str, subject: str, body: str) -> bytes:
    return (
        f"Return-Path: <>\nFrom: {sender}\nTo: news@example.com\nSubject: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{body}"
    ).encode()


LAYOUTS = {
    "smail": notice(
        "<MAILER-DAEMON@x.example.net>",
        "mail failed, returning to sender",
        "|------------------------- Message log follows: -------------------------|\n no valid recipients were found for this message\n|------------------------- Failed addresses follow: ---------------------|\n box@example.org ... unknown host\n|------------------------- Message text follows: ------------------------|\n"
        + ORIGINAL,
    ),
    "mdaemon": notice(
        "MDaemon@x.example.net",
        "Warning: x.example.net - User unknown!",
        "The following data may contain sections which represent BASE64 encoded\nfile attachments.\n\nThe following recipients did NOT receive a copy of your message:\n\n> box@example.org\n\n--- Session Transcript ---\n>>> RCPT To:<box@example.org>\n<<< 550 Unknown user\n--- End Transcript ---\n: Message contains [1] file attachments\n",
    ),
    "intended": notice(
        "postmaster@x.example.net",
        "Returned mail: delivery failed",
        "Mail could not be delivered.\n\nIntended recipient: box@example.org\n\nReason: user unknown\n",
    ),
    "quoted": notice(
        "Mail Delivery System <mailer-daemon@x.example.net>",
        "Mail delivery failed",
        "The message addressed to 'box@example.org' could not be delivered: no such user.\n\n---- START OF RETURNED MESSAGE ----\n"
        + ORIGINAL,
    ),
    "prodigy": notice(
        "Mail Delivery Subsystem <MAILER-DAEMON@x.example.net>",
        "Returned mail: quota",
        "Unable to deliver mail.\nUser's mailbox is full: <box@example.org>\n",
    ),
    "svc": notice(
        "System Administrator <postmaster@x.example.net>",
        "Undeliverable: News",
        "The email below could not be delivered to the following user:\n\n<box@example.org>\n\nOld message:\n"
        + ORIGINAL,
    ),
    "invalid": notice(
        "postmaster@x.example.net", "Delivery Notification: failed", "Invalid receiver address: box@example.org\n"
    ),
    "attached": notice(
        "postmaster@x.example.net",
        "Undeliverable message",
        "The attached message was not delivered to box@example.org because the mailbox does not exist.\n",
    ),
    "groupwise": notice(
        "Mail Delivery <postmaster@x.example.net>",
        "Message status - undeliverable",
        "The message that you sent was undeliverable to the following:\n\tbox@example.org (user not found)\n\nPossibly truncated original message follows:\n\n"
        + ORIGINAL,
    ),
    "imail": notice(
        "Postmaster <postmaster@x.example.net>",
        "Undeliverable Mail",
        "Unknown user: box@example.org\n\nOriginal message follows.\n\n" + ORIGINAL,
    ),
    "imail2": notice(
        "Postmaster <postmaster@x.example.net>",
        "Undeliverable Mail",
        "undeliverable to box@example.org\n\nOriginal message follows.\n\n" + ORIGINAL,
    ),
    "german": notice(
        "Mailer-Daemon <mailer-daemon@x.example.net>",
        "Fehlermeldung",
        "Die E-Mail an folgende Adresse konnte nicht zugestellt werden:\n\nbox@example.org\n\nGrund: Der Empfänger ist unbekannt.\n\nUrsprüngliche Nachricht:\n\n"
        + ORIGINAL,
    ),
    "german inline": notice(
        "Mailer-Daemon <mailer-daemon@x.example.net>",
        "Fehlermeldung",
        "Ihre Nachricht an <box@example.org> konnte nicht zugestellt werden: Empfänger unbekannt.\n",
    ),
    "french": notice(
        "postmaster@x.example.net",
        "Échec de la remise",
        "Votre message n'a pas pu être remis à:\n\n  box@example.org\n\nUtilisateur inconnu\n",
    ),
    "jp": notice(
        "Mail Delivery System <mailer-daemon@x.example.jp>",
        "配信不能",
        "以下の宛先にメールを配信できませんでした。\n\n＜box@example.org＞\n\n宛先のメールアドレスは存在しません。\n",
    ),
    "cn": notice(
        "PostMaster <PostMaster@x.example.cn>",
        "系统退信/Systems bounce",
        "抱歉，您的邮件被退回来了……\n\n收件人：box@example.org\n\n退信原因：收件人邮箱不存在。\n",
    ),
    "kr": notice(
        "postmaster@x.example.kr",
        "[반송] 메일 전송 실패",
        "받는 사람 : box@example.org\n\n사용자를 찾을 수 없습니다. 550 5.1.1\n",
    ),
    "ru": notice(
        "mailer-daemon@x.example.ru",
        "Недоставленное сообщение",
        "Не удалось доставить письмо следующим получателям:\n\n  box@example.org: Пользователь не найден\n",
    ),
    "table": notice(
        "Mail Delivery System <mailer-daemon@x.example.net>",
        "Delivery failure",
        "Recipient                 Reason\n------------------------------------\nbox@example.org           User unknown\n",
    ),
    "exchange html": (
        b'Return-Path: <>\nFrom: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@example.com>\nTo: news@example.com\nSubject: Unzustellbar: News\nContent-Type: text/html; charset=utf-8\n\n<html><head><style>a@b.example{}</style></head><body><p><b>Fehler bei der Nachrichtenzustellung an folgende Empf\xc3\xa4nger:</b></p><p><a href="mailto:box@example.org">box@example.org</a><br>Die eingegebene E-Mail-Adresse wurde nicht gefunden.</p><p>#550 5.1.1 RESOLVER.ADR.RecipNotFound; not found ##</p></body></html>'
    ),
    "o365 text": notice(
        "Microsoft Outlook <postmaster@x.onmicrosoft.example>",
        "Undeliverable: News",
        "Delivery has failed to these recipients or groups:\n\nbox@example.org<mailto:box@example.org>\nThe email address you entered couldn't be found. Please check the recipient's email address and try to resend the message. If the problem continues, please contact your email admin.\n\nDiagnostic information for administrators:\n\nGenerating server: x.example.net\n\nbox@example.org\nRemote Server returned '550 5.1.1 RESOLVER.ADR.RecipNotFound; not found'\n\nOriginal message headers:\n\n"
        + ORIGINAL,
    ),
    "zimbra": notice(
        "MAILER-DAEMON@x.example.net (Mail Delivery System)",
        "Undelivered Mail Returned to Sender",
        "This is the mail system at host x.example.net.\n\nI'm sorry to have to inform you that your message could not\nbe delivered to one or more recipients. It's attached below.\n\nFor further assistance, please send mail to postmaster.\n\n                   The mail system\n\n<box@example.org> (expanded from <alias@example.com>): host mx[192.0.2.1] said: 550 5.1.1 User unknown (in reply to RCPT TO command)\n",
    ),
    "courier": notice(
        '"Courier mail server at x" <@>',
        "NOTICE: mail delivery status.",
        "This is a delivery status notification from x.example.net,\nrunning the Courier mail server, version 0.65.\n\nThe original message was received on Mon\n\n---------------------------------------------------------------------------\n\n                           UNDELIVERABLE MAIL\n\nYour message to the following recipients cannot be delivered:\n\n<box@example.org>:\n    mx.example.org [192.0.2.1]:\n>>> RCPT TO:<box@example.org>\n<<< 550 5.1.1 <box@example.org>... User Unknown\n\n---------------------------------------------------------------------------\n",
    ),
    "opensmtpd": notice(
        "Mailer Daemon <MAILER-DAEMON@x.example.net>",
        "Delivery status notification: error",
        "    Hi!\n\n    This is the MAILER-DAEMON, please DO NOT REPLY to this email.\n\n    An error has occurred while attempting to deliver a message for\n    the following list of recipients:\n\nbox@example.org: 550 5.1.1 User unknown\n\n    Below is a copy of the original message:\n\n"
        + ORIGINAL,
    ),
    "haraka": notice(
        "MAILER-DAEMON@x.example.net",
        "failure notice",
        "Hi. This is the Haraka Mailer program at x.example.net.\nI'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\nIntended Recipients: <box@example.org>\nFailure Reason: 550 5.1.1 user unknown\n",
    ),
    "james": notice(
        "postmaster@x.example.net",
        "Re: News",
        "Hi. This is the James mail server at x.\nI'm afraid I wasn't able to deliver your message to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.  Below\nI include the list of recipients and the reason why I was unable to deliver\nyour message.\n\nFailed recipient(s):\nbox@example.org\n\nError message:\n550 5.1.1 User unknown\n",
    ),
    "lotus": notice(
        "Postmaster@x.example.net",
        "DELIVERY FAILURE: 550 5.1.1 User unknown",
        "Your message\n\n  Subject: News\n\nwas not delivered to:\n\n  box@example.org\n\nbecause:\n\n  550 5.1.1 User unknown\n",
    ),
    "delay exim": notice(
        "Mail Delivery System <Mailer-Daemon@x.example.net>",
        "Warning: message 1abc delayed 24 hours",
        "This message was created automatically by mail delivery software.\nA message that you sent has not yet been delivered to one or more of its\nrecipients after more than 24 hours on the queue on x.\n\nThe address to which the message has not yet been delivered is:\n\n  box@example.org\n    Delay reason: Connection timed out\n\nNo action is required on your part.\n",
    ),
}

CAUSES = {
    "smail": "unknown-host",
    "prodigy": "mailbox-full",
    "svc": "other",
    "imail2": "other",
    "delay exim": "network",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    reading = read(LAYOUTS[name])
    assert reading.kind is (Kind.DELAY if name.startswith("delay") else Kind.BOUNCE)
    assert [recipient.address for recipient in reading.recipients] == ["box@example.org"]
    assert reading.recipients[0].bounce_class is BounceClass(CAUSES.get(name, "unknown-user"))
