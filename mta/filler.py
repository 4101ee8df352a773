"""Text for test mail that compresses about as a newsletter does, the same for the same seed."""

import random

_LINE_CHARACTERS = 72
_WORDS = (  # noqa: SIM905 – two hundred pairs of quotes would hide the words
    "about after again all along also always and another any around as autumn back because before best better book "
    "both bread bring but by calm call can change choose city close colour come cook could country course day dear "
    "delivery different each early easy end enough even evening every few find first five fold follow food for "
    "free fresh friend from full garden get give go good great green guide half hand have hear help here home hour "
    "house how idea if in interest into issue it just keep kind kitchen know large last late learn leave less "
    "letter light like list little live local long look made make many market meet month more morning most much "
    "near never new news next night no not note now number of offer often old on once one only open or order other "
    "our out over own page part people place plant price question quiet rain read reader recipe right road room "
    "same say season see shop short show simple since slow small so some soon story street summer sun table take "
    "tea tell than that the their them then there these they thing think this time to today town travel tree try "
    "turn under until up use very visit walk want warm water way we week well what when where which while who will "
    "winter with without word work world would write year you young your"
).split()
_COMMON_FIRST = random.Random(1).sample(_WORDS, len(_WORDS))  # noqa: S311 – filler


def text(characters: int, seed: int = 0) -> str:
    """So many characters of something like a newsletter's text, in CRLF lines; the last line may be short."""
    chance = random.Random(seed)  # noqa: S311 – filler
    lines: list[str] = []
    length = 0
    while length < characters:
        line = _line(chance)
        lines.append(line)
        length += len(line) + 2
    filled = "".join(line + "\r\n" for line in lines)[: max(0, characters - 2)].rstrip("\r\n")
    return filled.ljust(max(0, characters - 2), "x") + "\r\n"


def _line(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return ""
    words: list[str] = []
    length = 0
    while length < _LINE_CHARACTERS - 12:
        # Squaring prefers the front of a shuffled list: words of a real text are as unevenly common.
        word = _COMMON_FIRST[int(chance.random() ** 2 * len(_COMMON_FIRST))]
        words.append(
            word if chance.random() > 0.08 else word + chance.choice((",", ".", "!", f" {chance.random():.3f}"))
        )
        length += len(words[-1]) + 1
    return " ".join(words).capitalize()
