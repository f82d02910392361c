"""The worked figures of the lecture notes, each with a function that recomputes it; docs/figures.md is made from this list.

A figure says where it stands, quotes the page and gives the notes' numbers with the digits that the notes give. What is true
is computed: by the reference, or, for rows of attention weights, by auditing a function that answers with the row. A verdict
compares the two; no verdict and no recomputed number is written down here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

import numpy as np
from figure_kinds import (
    ELLIPSIS,
    FIGURES,
    SUMS_TO_ONE,
    Figure,
    Found,
    Readings,
    audit_of_sums,
    evidence,
    figure,
    refuted,
    section,
    shown,
    statement,
    weights,
)
from figure_models import language_model, masked, normalised_by_the_sum, one_at_a_time, reversed_in_parallel, speculative

import attnspec
from attnspec.properties.verdict import Verdict
from attnspec.reference.additive_attention import additive_energies, additive_hidden
from attnspec.reference.attention import attention_weights, scores
from attnspec.reference.cross_entropy import token_losses
from attnspec.reference.embedding import average_embedding
from attnspec.reference.greedy_search import greedy_search
from attnspec.reference.linear import linear
from attnspec.reference.shapes import FloatArray, IntArray
from attnspec.reference.softmax import softmax
from attnspec.report.terminal import failure

DOCUMENTS = {
    "N0": "Masked Multi-Head Attention in Transformer",
    "N1": "Golden words: all seq-to-seq models are auto-regressive models",
    "N2": "Multihead, Cross & masked self Attention",
    "N3": "Seq2Seq Data",
    "N4": "Transformer Decoder Architecture and Masked Multi-Head Attention",
}

# The figures, in the order of the page

section("Softmax, dot products and variance")


@figure("N3", r"\text{softmax}(4, 5) … \approx (26.89, 73.11)", "26.89 73.11")
def softmax_of_4_and_5() -> tuple[Readings, str]:
    return {"": 100 * softmax(np.array([4.0, 5.0]))}, "In per cent."


@figure("N3", r"\text{softmax}(1, 10) … \approx (0.01, 99.99)", "0.01 99.99")
def softmax_of_1_and_10() -> tuple[Readings, str]:
    return {"": 100 * softmax(np.array([1.0, 10.0]))}, "In per cent."


TENS = np.arange(10.0, 71.0, 10.0)


def _variances(x: FloatArray) -> Readings:
    return {"population variance": np.var(x), "sample variance": np.var(x, ddof=1)}


@figure("N3", r"x = 10, 20, 30, 40, 50, 60, 70 … \text{val}(A) = 400", "400")
def variance_of_tens() -> tuple[Readings, str]:
    return _variances(TENS), "The page does not say which of the two it takes."


@figure("N3", r"x = 1, 2, 3, 4, 5, 6, 7 … \text{val}(A) = 7", "7", otherwise="wrong as read")
def variance_of_tenths() -> tuple[Readings, str]:
    factor = np.var(TENS) / np.var(TENS / 10)
    why = (
        f"Divided by 10, the variance falls by {factor:.6g}. The 7 may be a 4 misread: below, the same page reads 4 for a 7."
    )
    return _variances(TENS / 10), why


@figure("N3", r"1) [1 \ 2] \odot [3, 2] … \left. \begin{array}{l} -9", "-9", otherwise="illegible in part")
def dot_product_of_two() -> tuple[Readings, str]:
    q, k = np.array([[[[1.0, 2.0]]]]), np.array([[[[3.0, 2.0]]]])
    return {"": scores(q, k, scale=1.0)}, "The sign and the digit are a guess of the transcription."


@figure("N3", r"$3 \times 3 \Rightarrow 9$ vector", "9")
def scores_of_three_words() -> tuple[Readings, str]:
    x = np.eye(3)[None, None]
    return {"": scores(x, x).size}, "Nine numbers, as the next lines of the page say, not vectors."


section("Query, key and value by hand")

MONEY, BANK = np.array([2.0, 7.0]), np.array([9.0, 3.0])
MATRICES = {  # the notes write rows times matrix
    "q": np.array([[2.0, 1.0], [1.0, 2.0]]),
    "k": np.array([[3.0, 4.0], [5.0, 1.0]]),
    "v": np.array([[4.0, 1.0], [2.0, 1.0]]),
}
NOTES_OWN = {"q": np.array([[11.0, 8.0], [21.0, 9.0]]), "k": np.array([[41.0, 15.0], [42.0, 39.0]])}


def _mapped(x: FloatArray, name: str) -> FloatArray:
    return linear(x, {"weight": MATRICES[name].T})


@figure("N3", r"= \{4+7 \ 2+4\} = \{11 \ 8\}", "11 8")
def query_of_money() -> tuple[Readings, str]:
    return {"": _mapped(MONEY, "q")}, f"The second number is 2·1 + 7·2; the page has 2+4, which is {2 + 4} and not 8 either."


@figure("N3", r"= \begin{bmatrix} 18+3 & 3+6 \\ 2+6 & 9 \end{bmatrix} = \begin{bmatrix} 21 & 9", "21 9")
def query_of_bank() -> tuple[Readings, str]:
    return {"": _mapped(BANK, "q")}, "The second number is 9·1 + 3·2; the page has 3+6. Its second row belongs to nothing."


@figure("N3", r"= \{6+35 \ 8+7\} = \{41 \ 15\}", "41 15")
def key_of_money() -> tuple[Readings, str]:
    return {"": _mapped(MONEY, "k")}, ""


@figure("N3", r"= \begin{bmatrix} 27+15 & 36+3 \\ 42+5 & 9 \end{bmatrix} = \begin{bmatrix} 42 & 39", "42 39")
def key_of_bank() -> tuple[Readings, str]:
    return {"": _mapped(BANK, "k")}, "The second row on the page belongs to nothing."


@figure("N3", r"\begin{bmatrix} 9 & 1 \\ 2 & 1 \end{bmatrix} = \{8+14 \ 2+7\} = \{22 \ 9\}", "22 9")
def value_of_money() -> tuple[Readings, str]:
    nine = linear(MONEY, {"weight": np.array([[9.0, 1.0], [2.0, 1.0]]).T})
    why = "The page reads 9 in the corner of W_v here and 4 further down; its own 8+14 and 36+6 need the 4."
    return {"": nine, "4 in the corner of W_v": _mapped(MONEY, "v")}, why


@figure("N3", r"\begin{bmatrix} 36+6 & 9+2 \\ 42+2 & 9 \end{bmatrix} = \begin{bmatrix} 42 & 11", "42 11")
def value_of_bank() -> tuple[Readings, str]:
    return {"": _mapped(BANK, "v")}, "The second number is 9·1 + 3·1; the page has 9+2."


def _scores(q: FloatArray, k: FloatArray) -> FloatArray:
    table: FloatArray = scores(q[None, None], k[None, None], scale=1.0)[0, 0]
    return table


def _right_scores() -> FloatArray:
    both = np.stack([MONEY, BANK])
    return _scores(_mapped(both, "q"), _mapped(both, "k"))


@figure(
    "N3",
    r"\begin{bmatrix} 2 & 3 \end{bmatrix} \begin{bmatrix} 3 & 1 \\ 1 & 5 \end{bmatrix} … 82+95",
    "82 95",
    otherwise="illegible in part",
)
def score_of_bank_by_hand() -> tuple[Readings, str]:
    terms = _mapped(BANK, "q") * _mapped(MONEY, "k")
    own = NOTES_OWN["q"][1] * NOTES_OWN["k"][0]
    return {"": terms, "from the notes' own query": own}, "The two products that make up the score of bank and money."


@figure("N3", r"g_{21} = 10 \quad g_{12} = 32", "10 32")
def scores_of_both_words() -> tuple[Readings, str]:
    right, own = _right_scores(), _scores(NOTES_OWN["q"], NOTES_OWN["k"])
    why = (
        f"The whole table is [[{shown(right[0])}], [{shown(right[1])}]]. The notes' scores belong to no vectors of the page."
    )
    return {"": [right[1, 0], right[0, 1]], "from the notes' own queries": [own[1, 0], own[0, 1]]}, why


RAW = np.array([10.0, 32.0])


@figure("N3", r"g'_{21} = \frac{10}{2} = 7.09", "7.09")
def first_scaled_score() -> tuple[Readings, str]:
    why = f"10 / 1.41 is {10 / 1.41:.3f}: the root was rounded before the division. The root sign is lost on the page."
    return {"": RAW[0] / np.sqrt(2), "without a root": RAW[0] / 2}, why


@figure("N3", r"g'_{12} = 22.69", "22.69")
def second_scaled_score() -> tuple[Readings, str]:
    return {"": RAW[1] / np.sqrt(2)}, f"32 / 1.41 is {32 / 1.41:.3f}, cut off."


@figure("N3", r"w_{21} = 0.2 … w_{12} = 0.8", "0.2 0.8")
def weights_of_both_scores() -> tuple[Readings, str]:
    apart = np.log(0.8 / 0.2)
    why = f"Weights of 0.2 and 0.8 belong to scores that differ by {apart:.3f}, not by {np.ptp(RAW / np.sqrt(2)):.1f}."
    return {"": softmax(RAW / np.sqrt(2))}, why


section("Rows of weights")

weights(
    "row_of_you", "N0", "made with 15% of आप (we know this word), 75% of देंगे and 1% of हैं", "15 75 1",
    f"With 10 % for the 1 % it would sum to {(15 + 75 + 10) / 100:g}.", {"": 100},
)  # fmt: skip
weights(
    "row_in_per_cent", "N1", "WE NEED 0.8% THIS WORD, 0.1% THIS WORD AND 0.1% THIS WORD", "0.8 0.1 0.1",
    "Fractions are meant, not percentages.", {"": 100, "fractions": 1},
)  # fmt: skip
weights("row_of_bank_1", "N3", r"\text{bank} = 0.3 \text{ money} + 0.7 \text{ bank} + 0.1 \text{ grow}", "0.3 0.7 0.1")
weights("row_of_bank_2", "N3", r"\text{bank} = 0.5 \text{ river} + 0.4 \text{ bank} + 0.1 \text{ flows}", "0.5 0.4 0.1")
weights("row_of_money", "N3", r"\text{money} = 0.7 \text{ money} + 0.2 \text{ bank} + 0.1 \text{ grows}", "0.7 0.2 0.1")
weights("row_of_bank_3", "N3", r"\text{bank} = 0.25 \text{ money} + 0.7 \text{ bank} + 0.05 \text{ grows}", "0.25 0.7 0.05")
weights(
    "row_of_grows", "N3", r"\text{grows} = 0.01 \text{ money} + 0.02 \text{ bank} + 0.07 \text{ grows.}", "0.01 0.02 0.07",
    f"Ten times as much each, 0.1, 0.2 and 0.7, would sum to {(1 + 2 + 7) / 10:g}.",
)  # fmt: skip
weights("row_of_river", "N3", r"\text{River} = 0.8 \text{ River} + 0.15 \text{ bank} + 0.05 \text{ flows}", "0.8 0.15 0.05")
weights("row_of_bank_4", "N3", r"\text{bank} = 0.2 \text{ River} + 0.78 \text{ bank} + 0.02 \text{ flows}", "0.2 0.78 0.02")
weights("row_of_flows", "N3", r"\text{flows} = 0.4 \text{ River} + 0.01 \text{ bank} + 0.59 \text{ flows.}", "0.4 0.01 0.59")
weights("row_of_now", "N3", "e_{now} = 0.2 e_{now} + 0.1 e_{are} + 0.7 e_{you}", "0.2 0.1 0.7")
weights("row_of_are", "N3", "e_{are} = 0.3 e_{now} + 0.2 e_{are} + 0.5 e_{you}", "0.3 0.2 0.5")
weights("row_of_you_2", "N3", "e_{you} = 0.7 e_{now} + 0.3 e_{are} + 0.1 e_{you}", "0.7 0.3 0.1")


section("Counts")


@figure("N3", r"\text{total } \alpha = i + j = 4 \times 4 = 16", "16")
def number_of_alphas() -> tuple[Readings, str]:
    q = np.zeros((1, 1, 4, 1))
    return {"the sum i + j": 4 + 4, "the product": attention_weights(q, q).size}, "One for each pair: the i + j is a slip."


@figure("N3", r"4x1 … 4x3 … 4x8", "4 8 4 3 4 1")
def sizes_of_additive_attention() -> tuple[Readings, str]:
    query, states = np.zeros((1, 1, 4)), np.zeros((1, 4, 4))
    parameters = {"query.weight": np.zeros((3, 4)), "key.weight": np.zeros((3, 4)), "score.weight": np.zeros(3)}
    pairs = np.concatenate([np.broadcast_to(query, states.shape), states], axis=-1)[0]
    hidden, energies = additive_hidden(query, states, parameters)[0, 0], additive_energies(query, states, parameters)[0, 0]
    rows, columns = np.concatenate([parameters["query.weight"], parameters["key.weight"]], axis=1).T.shape
    why = (
        f"Rows [s; h], then the hidden layer, then the energies. Between them stands a matrix of {rows}x{columns}, where the "
        f"page reads 2x3, and one of {columns}x1."
    )
    return {"": [*pairs.shape, *hidden.shape, *energies[:, None].shape]}, why


def decoder_runs(words: int) -> int:
    """Counts the runs of a decoder that says so many words and then the end, under greedy search."""
    runs = 0

    def step(_: IntArray, state: IntArray) -> tuple[FloatArray, IntArray]:
        nonlocal runs
        runs += 1
        return np.eye(words + 2)[state], state + 1

    greedy_search(step, np.array([1]), start_id=0, end_id=words + 1, limit=2 * words)
    return runs


@figure("N0", "Transforme run 4 times > 3 words", "4")
def runs_for_3_words() -> tuple[Readings, str]:
    return {"": decoder_runs(3)}, "One for each word, and one that says it is the end."


@figure("N3", "If 300 words, it means 301 times separate run decoder.", "301")
def runs_for_300_words() -> tuple[Readings, str]:
    return {"": decoder_runs(300)}, "As above."


section("Loss and embedding")


def _losses(*probabilities: float) -> FloatArray:
    """-log of each probability, from the reference's loss on two words."""
    p = np.array(probabilities)
    return token_losses(np.log(np.stack([p, 1 - p], axis=-1)), np.zeros(len(p), dtype=np.int64))


@figure("N3", r"C_3 = -1 \cos(0.04) … = 0.99", "0.99", otherwise="illegible in part")
def loss_of_third_step() -> tuple[Readings, str]:
    natural = _losses(0.04)
    readings = {"": -np.cos(0.04), "-log 0.04": natural, "-log10 0.04": natural / np.log(10)}
    likely = _losses(0.4)[0] / np.log(10)
    why = f"A logarithm is meant. -log10 0.4 is {likely:.3f}, or {np.floor(100 * likely) / 100:.2f} if it is cut off."
    return readings, why


@figure("N3", r"L_1 = -1 \log(0.01)$ … L_2 = 1 … real loss = 2.39", "2.39", otherwise="illegible in part")
def total_loss() -> tuple[Readings, str]:
    natural = _losses(0.01, 0.04)
    first, third = _losses(0.1, 0.4) / np.log(10)
    readings = {
        "natural logarithms": natural.sum() + 1,
        "base ten": natural.sum() / np.log(10) + 1,
        "base ten of 0.1 and 0.4": first + 1 + third,
    }
    why = (
        "The decimal points are doubtful. Base ten of 0.1 and 0.4 gives the notes' total if the last term "
        f"is cut off: {first:.2f} + 1 + {np.floor(100 * third) / 100:.2f} = {first + 1 + np.floor(100 * third) / 100:.2f}."
    )
    return readings, why


@figure("N3", "real loss = 2.39 … avg loss = 0.7", "0.7")
def average_loss() -> tuple[Readings, str]:
    return {"": 2.39 / 3}, "Of three steps, from the notes' own total. Cut off, not rounded."


APPLE = np.array([[0.6, 0.0], [0.7, 0.0], [0.8, 0.0], [0.8, 0.2]])


@figure("N3", "[0.6 0] … [0.7 0] … [0.8 0] … [0.8 0.2] … [0.9 0.3]", "0.9 0.3", otherwise="not their average")
def embedding_of_apple() -> tuple[Readings, str]:
    highest = APPLE.max(axis=0)
    why = (
        f"No average of the four can be: their largest entries are {shown(highest)}. They read like values on the way, "
        "sentence by sentence; the other sentences that the page speaks of are not shown."
    )
    return {"": average_embedding(np.zeros(4, dtype=np.int64), APPLE, 1)}, why


section("Statements")


@statement("N3", r"\alpha_{ij} = \frac{e_{ij}}{\sum_j e_{ij}}")
def weights_without_exp() -> Found:
    against = evidence(audit_of_sums(normalised_by_the_sum))
    shows = "holds" if against is None else f"{against.what}: got {shown(against.got)}, expected {shown(against.expected)}"
    why = (
        "The exp is missing, which other places of N3 have. Scores of zero become 0/0, and scores below zero give weights "
        "below zero."
    )
    return refuted(against is not None, shows, why)


@statement("N1", "GOLDEN WORDS: ALL SEQ-TO-SEQ MODELS ARE AUTO-REGRESSIVE MODELS")
def all_are_autoregressive() -> Found:
    sources = [words for S in range(1, 6) for words in product(range(3), repeat=S)]
    right = sum(reversed_in_parallel(words, 3) == list(words[::-1]) for words in sources)
    why = (
        "One model that is not suffices: this one reverses its source by cross-attention from positions, and no output is "
        "ever an input. Translation models of the kind exist (arXiv:1711.02281). True of every model in the notes."
    )
    return refuted(right == len(sources), f"{right} of {len(sources)} sources right, in one run each", why)


@statement("N4", "**Training is sequential** across tokens")
def training_is_sequential() -> Found:
    claims = ["mask.parallel-is-stepwise", "mask.causal"]
    report = attnspec.audit(masked, select=claims, arrays="numpy", layout="bhtd", dtypes="float64", alignment="bottom-right")
    verdicts = {claim: Verdict.merge(r.verdict for r in records) for claim, records in report.by_claim().items()}
    shows = ", ".join(f"`{claim}` {verdict.value}" for claim, verdict in verdicts.items())
    why = (
        "With the right words as input and a causal mask, one run of all positions gives what step after step gives, as N4 "
        "says itself further down. Sequential only without teacher forcing, where each input is the output before."
    )
    return refuted(all(verdicts[claim] is Verdict.HOLDS for claim in claims), shows, why)


@statement("N4", "Inference must be **sequential**, but training can be optimized")
def inference_is_one_at_a_time() -> Found:
    model, draft = language_model()
    (one, runs), (several, fewer) = one_at_a_time(model, 40), speculative(model, draft, 40, 4)
    same = "the same" if one == several else "other"
    why = (
        "A draft guesses, one run of the model checks several words (speculative decoding, arXiv:2211.17192). Each word "
        "still depends on those before."
    )
    verdict = "true of the dependencies, not of the runs" if one == several and fewer < runs else "not refuted"
    return Found(f"{same} {len(one) - 1} words in {fewer} runs of the model, not {runs}", verdict, why)


@statement("N3", "problem is word > 25 context vector … researcher notice sentence > 30", "25 30")
def summaries_fail() -> Found:
    why = (
        "Two limits for one thing, and the notes measure neither. It depends on model, data and training: only models "
        "trained with and without attention, repeated over seeds, can measure it, and none is trained here yet."
    )
    return Found("", "not measured", why)


# The page


def page() -> str:
    """All figures, section by section, and what the claim says of the rows that are not attention weights."""
    found = {name: it.found() for name, it in FIGURES.items()}
    verdicts = Counter(f.verdict.partition(", as")[0] for f in found.values())
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    lines = [
        "<!-- Generated by docs/generate.py from docs/figures.py: edit that list, not this page. -->\n",
        "# The notes' figures\n",
        f"The lecture notes work out {len(found)} figures. The notes are a third party too: each figure is recomputed here "
        f"and judged by the digits that the notes give. {counts[0].upper()}{counts[1:]}.\n",
        "| document | title |\n| --- | --- |",
        *(f"| {short} | {title} |" for short, title in DOCUMENTS.items()),
    ]
    for title in dict.fromkeys(it.section for it in FIGURES.values()):
        lines += [f"\n## {title}\n", "| in | the notes | figure | recomputed | verdict | |", "| --- |" + " --- |" * 5]
        lines += [_line(it, found[name]) for name, it in FIGURES.items() if it.section == title]
    return "\n".join([*lines, "", *_caught(found)]) + "\n"


def _line(it: Figure, found: Found) -> str:
    places = ELLIPSIS.join(f"`{' '.join(part.split())}`" for part in it.quote.split(ELLIPSIS))
    cells = [it.document, places, ", ".join(it.numbers), found.recomputed, f"**{found.verdict}**", found.why]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _caught(found: dict[str, Found]) -> Iterator[str]:
    """What the claim has found, the first time in full; and that it lets the other rows pass."""
    audits = {name: [a for a in f.audits if a.violations] for name, f in found.items()}
    rows = [(name, audit) for name, of in audits.items() for audit in of]
    controls = [r for f in found.values() for a in f.audits if not a.violations for r in a.records if r.ratio is not None]
    yield f"## Caught by `{SUMS_TO_ONE}`\n"
    yield "A function that answers with a row of the notes wherever there are three keys, and rightly elsewhere, is audited"
    yield f"as any other would be ([the claim](claims.md#{SUMS_TO_ONE.replace('.', '')})). {len(rows)} rows are caught:\n"
    yield "| in | figure | what | got | expected | allowed |"
    yield "| --- |" + " --- |" * 5
    for name, audit in rows:
        it, e = FIGURES[name], evidence(audit)
        assert e is not None
        cells = [it.document, ", ".join(it.numbers), e.what, shown(e.got), shown(e.expected), shown(e.allowed)]
        yield f"| {' | '.join(cells)} |"
    worst = max(float(r.ratio or 0) for r in controls)
    yield f"\nThe other {len(controls)} rows, other readings included, pass the same claim, with an error of at most"
    yield f"{worst:.2g} of the bound."
    yield "Of the first row the audit prints:\n"
    yield "```text"
    yield (failure(rows[0][1].violations, rows[0][1]) or "").strip().partition("\n\nLikely cause")[0]
    yield "```"
