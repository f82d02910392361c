"""A little English and a language like Hindi: sentences of any length, drawn at random, with their only translation.

The verb moves to the end and agrees with its subject in number and gender, prepositions become postpositions, in front of
which nouns and adjectives change, "of" swaps its sides and agrees with what is owned, and a relative clause comes first:

    the king who does not help the boys of my farmer in the big good house will call the big king
    jo raja bare achchhe ghare mein mere kisane ke larkon ko nahin bachata hai vah bare raje ko bulaega

The words are made up, some of them after real ones, so that all nouns of a gender have the same endings.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

PEOPLE = {"boy": "larka", "farmer": "kisana", "king": "raja", "girl": "larki", "queen": "rani", "aunt": "chachi"}
THINGS = {"mango": "ama", "letter": "khata", "cloth": "kapra", "bread": "roti", "chair": "kursi", "cart": "gari"}
PLACES = {"garden": "bagicha", "house": "ghara", "river": "nadi", "village": "basti"}
ADJECTIVES = {"small": "chhot", "big": "bar", "good": "achchh", "old": "puran"}
TO_THINGS = {"buy": "kharid", "bring": "la", "wash": "dho", "want": "chah"}
TO_PEOPLE = {"see": "dekh", "help": "bacha", "call": "bula"}
ALONE = {"sleep": "so", "laugh": "hans", "run": "daur"}
SAYING = {"say": "kah", "think": "soch"}
PREPOSITIONS = {"in": "mein", "from": "se", "near": "ke-pas"}
TIMES = {"today": "aj", "now": "ab"}


class Noun(NamedTuple):
    """A group of words around a noun: English, the other language before a verb and before a postposition, and agreement."""

    english: str
    direct: str
    oblique: str
    many: bool
    feminine: bool


def ending(stem: str, many: bool, feminine: bool, oblique: bool) -> str:
    """Adjectives, possessives and participles: -a, -e for many or in front of a postposition, -i for the feminine."""
    return stem + ("i" if feminine else "e" if many or oblique else "a")


def noun_form(word: str, many: bool, oblique: bool) -> str:
    """Nouns in -a are masculine, those in -i feminine."""
    endings = {"i": ("i", "iyan", "i", "iyon"), "a": ("a", "e", "e", "on")}[word[-1]]
    return word[:-1] + endings[2 * oblique + many]


def noun_group(draw: random.Random, nouns: dict[str, str], owner: bool = True) -> Noun:
    """An article, up to two adjectives, a noun, and perhaps its owner."""
    english, word = draw.choice(list(nouns.items()))
    many, feminine = draw.random() < 0.4, word.endswith("i")
    article = draw.choice(["the", "the", "my", "these" if many else "this"])
    adjectives = draw.sample(list(ADJECTIVES), draw.choice([0, 0, 1, 1, 2]))
    forms = []
    for oblique in (False, True):
        articles = {"the": [], "my": [ending("mer", many, feminine, oblique)], "this": ["is" if oblique else "yah"]}
        articles["these"] = ["in" if oblique else "ye"]
        described = [ending(ADJECTIVES[one], many, feminine, oblique) for one in adjectives]
        forms.append(" ".join([*articles[article], *described, noun_form(word, many, oblique)]))
    said = " ".join([article, *adjectives, english + "s" * many])
    if owner and draw.random() < 0.2:
        of = noun_group(draw, PEOPLE, owner=False)
        said = f"{said} of {of.english}"
        forms = [f"{of.oblique} {ending('k', many, feminine, oblique)} {forms[oblique]}" for oblique in (False, True)]
    return Noun(said, *forms, many, feminine)


def verb(draw: random.Random, english: str, stem: str, subject: Noun) -> tuple[str, str]:
    """Present or future, affirmed or denied."""
    many, feminine, no = subject.many, subject.feminine, draw.random() < 0.3
    if draw.random() < 0.35:
        future = stem + ("en" if many else "e") + ending("g", many, feminine, False)
        return ("will not " if no else "will ") + english, ("nahin " if no else "") + future
    present = f"{ending(stem + 't', many, feminine, False)} {'hain' if many else 'hai'}"
    if no:
        return ("do not " if many else "does not ") + english, f"nahin {present}"
    return english + "es" * (english == "wash" and not many) + "s" * (english != "wash" and not many), present


def predicate(draw: random.Random, subject: Noun) -> tuple[str, str]:
    """A verb with its object, if it takes one, and perhaps a place."""
    kind = draw.choice([TO_THINGS, TO_PEOPLE, ALONE])
    said, done = verb(draw, *draw.choice(list(kind.items())), subject)
    if kind is not ALONE:
        thing = noun_group(draw, THINGS if kind is TO_THINGS else PEOPLE)
        said = f"{said} {thing.english}"
        done = f"{thing.direct if kind is TO_THINGS else thing.oblique + ' ko'} {done}"
    if draw.random() < 0.3:
        place, (preposition, postposition) = noun_group(draw, PLACES), draw.choice(list(PREPOSITIONS.items()))
        said, done = f"{said} {preposition} {place.english}", f"{place.oblique} {postposition} {done}"
    return said, done


def clause(draw: random.Random, depth: int = 0) -> tuple[str, str]:
    """A sentence, perhaps with another one inside."""
    subject, inside = noun_group(draw, PEOPLE), draw.random() if depth < 1 else 1.0
    if inside < 0.15:  # the boy says that ..
        said, done = verb(draw, *draw.choice(list(SAYING.items())), subject)
        english, other = clause(draw, depth + 1)
        return f"{subject.english} {said} that {english}", f"{subject.direct} {done} ki {other}"
    first, second = predicate(draw, subject), predicate(draw, subject)
    if inside < 0.3:  # the boy who .. does ..
        return (
            f"{subject.english} who {first[0]} {second[0]}",
            f"jo {subject.direct} {first[1]} {'ve' if subject.many else 'vah'} {second[1]}",
        )
    return f"{subject.english} {first[0]}", f"{subject.direct} {first[1]}"


def sentence(draw: random.Random) -> tuple[str, str]:
    """A sentence of English and its translation."""
    english, other = clause(draw)
    if draw.random() < 0.2:
        time, when = draw.choice(list(TIMES.items()))
        english, other = f"{time} {english}", f"{when} {other}"
    return english, other


def held_out(english: str) -> bool:
    """Whether a sentence is kept for the test: one in ten, whatever the seed, so that no training has ever seen it."""
    return hashlib.blake2b(english.encode()).digest()[0] % 10 == 0


def pairs(seed: int, test: bool) -> Iterator[tuple[str, str]]:
    """Unlike sentences without end, for training or for the test."""
    draw, seen = random.Random(seed), set()
    while True:
        pair = sentence(draw)
        if pair[0] not in seen and held_out(pair[0]) == test:
            seen.add(pair[0])
            yield pair
