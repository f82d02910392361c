import math
import re

import numpy as np
import pytest
from hypothesis import strategies as st

from attnspec.reference.bleu import bleu, brevity_penalty, modified_precision
from tests.reference.closeness import assert_close
from tests.reference.drawn import given

# Papineni et al. (ACL 2002), sec. 2.1, examples 1 and 2
CANDIDATE_1 = "It is a guide to action which ensures that the military always obeys the commands of the party"
CANDIDATE_2 = "It is to insure the troops forever hearing the activity guidebook that party direct"
REFERENCES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]
SENTENCE = st.lists(st.sampled_from("abc"), min_size=1, max_size=8)


def precision(candidate, references, n):
    return modified_precision([candidate.split()], [[reference.split() for reference in references]], n)


def test_examples_of_the_paper():
    cats = ["the cat is on the mat", "there is a cat on the mat"]
    assert precision("the the the the the the the", cats, 1) == (2, 7)
    assert precision("the the the the the the the", cats, 2) == (0, 6)
    assert precision(CANDIDATE_1, REFERENCES, 1) == (17, 18)
    assert precision(CANDIDATE_1, REFERENCES, 2) == (10, 17)
    assert precision(CANDIDATE_2, REFERENCES, 1) == (8, 14)
    assert precision(CANDIDATE_2, REFERENCES, 2) == (1, 13)
    assert precision("of the", REFERENCES, 2) == (1, 1)  # sec. 2.2.2: short candidates are too precise


def test_brevity():
    assert brevity_penalty(12, 12) == 1
    assert brevity_penalty(13, 12) == 1
    assert_close(brevity_penalty(4, 6), math.exp(-0.5))
    assert brevity_penalty(0, 6) == 0
    # the closest reference counts, of two equally close ones the shorter: here 4 and not 6
    assert bleu([["a"] * 5], [[["a"] * 6, ["a"] * 4]]) == 1
    assert_close(bleu([["a"] * 4], [[["a"] * 5, ["a"] * 8]]), math.exp(-1 / 4))


def test_smoothing():
    # 4 words, of which the first two are right: precisions 2/4, 1/3, 0/2, 0/1
    args = [["a", "b", "x", "y"]], [[["a", "b", "c", "d"]]]
    assert bleu(*args) == 0
    assert_close(bleu(*args, "floor"), (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1 / 1) ** 0.25)
    assert_close(bleu(*args, "add-k"), (2 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    assert_close(bleu(*args, "exp"), (2 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25)


def test_effective_order():
    args = [["a", "b"]], [[["a", "b"]]]
    for smoothing in ("none", "floor", "exp"):
        assert bleu(*args, smoothing) == 0  # there is no phrase of three words
        assert_close(bleu(*args, smoothing, effective_order=True), 1.0)
    assert_close(bleu(*args, "add-k"), 1.0)
    assert_close(bleu(*args, "add-k", effective_order=True), 1.0)
    # add-k gives a phrase to each order, so that all four count: 1/2, (0 + 1)/(1 + 1), 1/1, 1/1; sacrebleu has 70.71 too
    assert_close(bleu([["a", "b"]], [[["a", "c"]]], "add-k", effective_order=True), 0.25**0.25)


@pytest.mark.parametrize("smoothing", ["none", "floor", "add-k", "exp"])
def test_nothing_in_common(smoothing):
    assert bleu([["a", "b", "c", "d"]], [[["x", "y"]]], smoothing) == 0
    assert bleu([[]], [[["x", "y"]]], smoothing, effective_order=True) == 0


@given(st.lists(SENTENCE, min_size=1, max_size=3), st.sampled_from(["none", "floor", "exp", "add-k"]))
def test_a_perfect_translation(sentences, smoothing):
    assert_close(bleu(sentences, [[s, ["x"]] for s in sentences], smoothing, effective_order=True), 1.0)


@given(st.lists(st.tuples(SENTENCE, SENTENCE, SENTENCE), min_size=1, max_size=3), st.sampled_from(["floor", "exp", "add-k"]))
def test_a_share_that_ignores_the_order_of_sentences_and_references(corpus, smoothing):
    hypotheses = [one for one, _, _ in corpus]
    score = bleu(hypotheses, [[a, b] for _, a, b in corpus], smoothing)
    assert 0 <= score <= 1 + 2.0**-50
    np.testing.assert_array_equal(score, bleu(hypotheses[::-1], [[b, a] for _, a, b in corpus[::-1]], smoothing))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "0 hypotheses, 0 lists of references: a corpus has a hypothesis, and each hypothesis has a list"),
        (([["a"]], []), "1 hypotheses, 0 lists of references: a corpus has"),
        (([["a"]], [[]]), "1 hypotheses, 1 lists of references: a corpus has"),
        (([["a"]], [[["a"]]], "add"), "smoothing='add': it is one of none, floor, add-k, exp; pass one of these"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        bleu(*arguments)


@pytest.mark.parametrize(("hypotheses", "references"), [(["a b"], [[["a"]]]), ([["a"]], [["a b"]]), ([["a"]], ["a b"])])
def test_a_string_is_not_a_sentence_of_letters(hypotheses, references):
    for call in (bleu, lambda h, r: modified_precision(h, r, 1)):
        with pytest.raises(TypeError, match=r"^sentence='(a b|a)': it is a sequence of words; pass its split\(\)"):
            call(hypotheses, references)


def test_errors_of_the_parts():
    with pytest.raises(ValueError, match=r"^n=0: a phrase has at least 1 word; pass n >= 1"):
        modified_precision([["a"]], [[["a"]]], 0)
    with pytest.raises(ValueError, match=r"^1 hypotheses, 0 lists of references: a corpus has a hypothesis"):
        modified_precision([["a"]], [], 1)
    with pytest.raises(ValueError, match=r"^length=-1, reference_length=2: they count words; pass numbers from 0 up"):
        brevity_penalty(-1, 2)
