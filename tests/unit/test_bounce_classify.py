"""Rules: each finds its sample, none fights another; and what codes and texts mean together."""

from pathlib import Path

import pytest

from bounce.classify import ABOUT_THE_PERSON, Classifier, Rule, parse_rules, shipped
from bounce.outcome import BounceClass

RULES = shipped().rules
STATUS_CODES = (Path(__file__).parents[1] / "data" / "status_codes.txt").read_text("utf-8").splitlines()[1:]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.sample[:40])
def test_a_rule_finds_its_sample(rule: Rule) -> None:
    assert rule in shipped().matching(rule.sample)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.sample[:40])
def test_no_two_rules_of_one_strength_fight_over_a_sample(rule: Rule) -> None:
    rivals = [
        other
        for other in shipped().matching(rule.sample)
        if other.weak == rule.weak and other.bounce_class is not rule.bounce_class
    ]
    assert not rivals


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.sample[:40])
def test_a_sample_alone_gives_the_rules_class(rule: Rule) -> None:
    assert shipped().cause(rule.sample).bounce_class is rule.bounce_class


def test_patterns_match_nothing_in_plain_sentences() -> None:
    for text in ("Thank you for your order.", "See you on Monday at ten.", "2.0.0 OK 1772445600 a1-20020a - gsmtp", ""):
        assert not [rule for rule in shipped().matching(text) if not rule.weak]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550 <spam@example.com>: user unknown", BounceClass.UNKNOWN_USER),
        ("host quota-policy.example.com said: 550 user unknown", BounceClass.UNKNOWN_USER),
        ("550 5.1.1 no such user (virus.example.net[192.0.2.1])", BounceClass.UNKNOWN_USER),
    ],
)
def test_names_of_people_and_machines_are_no_evidence(text: str, expected: BounceClass) -> None:
    assert shipped().cause(text).bounce_class is expected


@pytest.mark.parametrize(
    ("text", "status", "expected", "told_by"),
    [
        # A strong text beats any code.
        ("550 5.7.1 No such user", "5.7.1", BounceClass.UNKNOWN_USER, "text"),
        ("550 5.1.1 Your address is listed at Spamhaus", "5.1.1", BounceClass.REPUTATION, "text"),
        # What is about us beats what is about the person.
        ("550 User unknown, or the message looks like spam", "", BounceClass.CONTENT, "text"),
        # A specific code beats a weak text.
        ("552 mailbox unavailable", "5.2.2", BounceClass.MAILBOX_FULL, "code"),
        ("550 something else", "5.1.1", BounceClass.UNKNOWN_USER, "code"),
        # A weak text beats an unspecific code.
        ("550 mailbox unavailable", "5.5.0", BounceClass.UNKNOWN_USER, "weak text"),
        # Then the subject of the code, then the reply code.
        ("550 no", "5.7.0", BounceClass.POLICY, "subject"),
        ("550 no", "5.1.0", BounceClass.OTHER, ""),
        ("550", "", BounceClass.OTHER, ""),
        # What answers MAIL is about the sender.
        ("550 no such user here (in reply to MAIL FROM command)", "", BounceClass.POLICY, "text"),
        ("550 5.1.8 no such domain", "5.1.8", BounceClass.POLICY, "text"),
        # The code that says more than the text.
        ("551 no such user", "5.1.6", BounceClass.MOVED, "text"),
    ],
)
def test_who_wins(text: str, status: str, expected: BounceClass, told_by: str) -> None:
    cause = shipped().cause(text, status, int(text[:3]))
    assert (cause.bounce_class, cause.told_by) == (expected, told_by)


@pytest.mark.parametrize("line", STATUS_CODES)
def test_the_registrys_codes_and_their_names(line: str) -> None:
    detail, right, name = line.split("|")
    assert shipped().cause(f"550 5.{detail} {name}", f"5.{detail}", 550).bounce_class in right.split(",")
    assert shipped().cause("550", f"5.{detail}", 550).bounce_class in [*right.split(","), "other", "policy", "system"]
    assert shipped().cause(name).bounce_class in [*right.split(","), "other"]


def test_a_code_with_a_doubtful_text_is_not_certain() -> None:
    assert shipped().cause("550 5.1.1 address is bad", "5.1.1").certain
    assert not shipped().cause("550 5.1.1 access denied", "5.1.1").certain


def test_a_long_reply_is_read_across_its_lines() -> None:
    text = "550-5.7.1 Messages with multiple\n550 5.7.1 addresses in From: header are not accepted"
    assert shipped().cause(text, "5.7.1", 550).bounce_class is BounceClass.CONTENT


def test_wrong_rules_are_named() -> None:
    with pytest.raises(ValueError, match="bounce rule 2"):
        parse_rules(
            "[[rule]]\nclass='content'\npattern='a'\nsample='a'\n[[rule]]\nclass='nonsense'\npattern='a'\nsample='a'\n"
        )
    with pytest.raises(ValueError, match="bounce rule 1"):
        parse_rules("[[rule]]\nclass='content'\nsample='a'\n")
    with pytest.raises(ValueError, match="can't be told from text"):
        parse_rules("[[rule]]\nclass='suppressed'\npattern='a'\nsample='a'\n")
    with pytest.raises(ValueError, match="pattern"):
        Classifier((Rule(BounceClass.CONTENT, "(", "a"),))


def test_without_rules_codes_still_speak() -> None:
    assert Classifier(()).cause("550 user unknown", "5.1.1", 550).bounce_class is BounceClass.UNKNOWN_USER


def test_only_classes_about_the_person_can_be_certain_by_code() -> None:
    assert BounceClass.POLICY not in ABOUT_THE_PERSON
    assert BounceClass.REPUTATION not in ABOUT_THE_PERSON
