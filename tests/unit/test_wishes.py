"""What an answer asks for: the languages, what makes it less than certain, and what is none."""

import re

import pytest

from bounce.own_words import folded
from bounce.vocabulary import reply_words
from bounce.wishes import LANGUAGES, MAX_SENTENCES, NOTHING, Certainty, Wish, wish_of

ANNA = '"Example, Anna" <anna.example@example.net>'

CERTAIN = {
    "en": [
        "unsubscribe",
        "Unsubscribe!!",
        "UNSUBSCRIBE ME",
        "Please unsubscribe me.",
        "stop",
        "STOP",
        "Remove me",
        "remove",
        "Please remove me from your mailing list. Thank you.\n\nAnna",
        "Take me off this list",
        "opt-out",
        "Hi there,\nkindly delete my e-mail address from your database now.\n\nBest regards\nAnna\nExample Inc.",
        "Please stop sending me these emails",
        "No more emails, please",
        "I don’t want to receive your newsletter any more",
        "I no longer wish to receive these messages.",
        "Do not email me again",
        "Cancel my subscription",
        "please take me off your list\n\nSent from my iPhone",
        "Remove anna.example@example.net from the list",
    ],
    "de": [
        "Abmelden",
        "bitte abmelden",
        "Stopp",
        "Newsletter abbestellen",
        "Bitte melden Sie mich vom Newsletter ab. Danke!",
        "Hallo,\nbitte nehmen Sie mich aus dem Verteiler.\n\nMit freundlichen Grüßen\nAnna Example",
        "Ich möchte keine Mails mehr erhalten",
        "Bitte löschen Sie meine E-Mail-Adresse aus Ihrem Verteiler.",
        "Bitte tragen Sie mich aus",
        "Ich melde mich hiermit vom Newsletter ab",
        "Keine Werbung mehr!",
        "Bitte senden Sie mir keine Newsletter mehr.\nVon meinem iPhone gesendet",
        "Ich möchte mich abmelden",
    ],
    "fr": [
        "Désabonnement",
        "me désabonner",
        "Désabonnez-moi de votre liste svp",
        "désinscription",
        "DESINSCRIPTION",
        "Bonjour,\nje ne souhaite plus recevoir vos mails.\nCordialement\nAnna",
        "Veuillez me désinscrire de votre newsletter",
        "Merci de me retirer de la liste",
        "Supprimez mon adresse de votre liste",
        "Merci de ne plus m’envoyer de mails",
        "Arrêtez de m’envoyer des mails",
        "Envoyé de mon iPhone\nme désinscrire",
    ],
    "es": [
        "baja",
        "Darme de baja",
        "Quiero darme de baja",
        "Por favor, denme de baja de su lista. Gracias",
        "Cancelar suscripción",
        "Hola,\nno quiero recibir más correos.\nSaludos\nAnna",
        "Elimínenme de su lista de correo por favor",
        "No me envíen más correos",
        "desuscribirme",
    ],
}


@pytest.mark.parametrize(("language", "own"), [(lang, own) for lang, texts in CERTAIN.items() for own in texts])
def test_a_clear_wish_is_certain(language: str, own: str) -> None:
    assert wish_of("Re: News", own, ANNA) == Wish(Certainty.CERTAIN, language=language)


PERHAPS = [
    "Don't unsubscribe me!",
    "please do not remove me",
    "Bitte nicht abmelden!",
    "Ne me désabonnez pas",
    "No quiero darme de baja",
    "How do I unsubscribe? And where is my order?",
    "I would like to unsubscribe but keep my account",
    "Stop!\nGreat offer, I want two.",
    "Remove bob@example.org from your list",
    "Unsubscribe my husband",
    "Thanks, unsubscribe\nRegards\nbut please do not unsubscribe me from the offers",
    "unsubscribe from the offers only",
    "Wie kann ich den Newsletter kündigen?",
    "Comment faire pour se désabonner ?",
    "¿Cómo cancelo mi suscripción?",
    "I can't find the opt out link",
    "unsubscribe\nThe information in this e-mail is confidential.",
    "\n".join(["unsubscribe"] * (MAX_SENTENCES + 1)),
    "unsubscribe " + "x" * 5_000,
]


@pytest.mark.parametrize("own", PERHAPS)
def test_with_one_word_more_it_is_possible(own: str) -> None:
    assert wish_of("Re: News", own, ANNA).certainty is Certainty.PERHAPS


@pytest.mark.parametrize(
    "own",
    [
        "",
        "Thank you!",
        "Where is my order?",
        "The train will stop at noon",
        "Danke, tolle Nachrichten",
        "Merci",
        "ok",
        "Gracias, un saludo",
        "Anna Example",
        "Please call me",
        "Ich bin umgezogen: neue Adresse folgt",
    ],
)
def test_anything_else_is_none(own: str) -> None:
    assert wish_of("Re: Unsubscribe from boredom", own, ANNA) == NOTHING


@pytest.mark.parametrize(
    ("subject", "own", "certainty"),
    [
        ("unsubscribe", "", Certainty.CERTAIN),
        ("Abmelden bitte", "\n", Certainty.CERTAIN),
        ("Re: unsubscribe", "", Certainty.NO),
        ("AW: Abmelden", "", Certainty.NO),
        ("RE: [3] unsubscribe", "", Certainty.NO),
        ("unsubscribe", "A question about your offer", Certainty.NO),
        ("", "", Certainty.NO),
    ],
)
def test_a_subject_counts_where_the_author_wrote_it_and_nothing_else(
    subject: str, own: str, certainty: Certainty
) -> None:
    assert wish_of(subject, own, ANNA).certainty is certainty


@pytest.mark.parametrize(
    "own",
    [
        "unsubscribe me from all lists",
        "Stop all emails",
        "Bitte aus allen Verteilern löschen",
        "Je ne veux plus recevoir aucun mail",
        "Denme de baja de todas las listas",
    ],
)
def test_everything_is_more_than_this_list(own: str) -> None:
    assert wish_of("Re: News", own, ANNA).everything is True


@pytest.mark.parametrize("table", ["quotation", *LANGUAGES])
def test_the_patterns_are_written_as_text_is_compared(table: str) -> None:
    for name, patterns in reply_words(table).items():
        for pattern in patterns:
            words = re.sub(r"\\.", "", pattern)
            assert folded(words) == words.replace("[nrms]?", "[nrms]?"), f"{table}.{name}: {pattern}"
