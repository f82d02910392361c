"""scikit-learn, sacrebleu and torch on words as numbers and on translations."""

from __future__ import annotations

from typing import Any

import numpy as np
import sacrebleu
import torch
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from attnspec.reference.bag_of_words import bag_of_words
from attnspec.reference.bleu import bleu
from attnspec.reference.embedding import average_embedding, embedding, embedding_backward
from attnspec.reference.one_hot import one_hot
from attnspec.reference.tf_idf import inverse_document_frequency, tf_idf
from attnspec.reference.vocabulary import vocabulary
from tests.authorities.agreement import Draw, agrees, authority

torch.set_num_threads(1)
WORDS = st.sampled_from(["a", "b", "c", "ä", "The", "the", "on.", "42"])
DOCUMENTS = st.lists(st.lists(WORDS, max_size=9), min_size=1, max_size=5).filter(any)
SENTENCES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=9)


def words_as_they_are(document: list[str]) -> list[str]:
    """The analyzer that leaves tokenisation to the caller."""
    return document


def one_of_each(draw: Draw) -> tuple[list[list[str]], tuple[str, ...], bool]:
    """A corpus, its vocabulary, and whether presence counts instead of numbers."""
    corpus = draw(DOCUMENTS)
    return corpus, vocabulary(corpus), draw(st.booleans())


@authority("I01", "torch.nn.functional.one_hot", of=(one_hot,))
def torch_one_hot(draw: Draw) -> None:
    """Ids of one or two axes as rows of zeros and a one, and their product with a table."""
    V, shape = draw(st.integers(1, 6)), tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids, table = rng.integers(0, V, shape), rng.normal(size=(V, 3))
    got = torch.nn.functional.one_hot(torch.tensor(ids), V).double()
    np.testing.assert_array_equal(got.numpy(), one_hot(ids, V))
    agrees((got @ torch.tensor(table)).numpy(), lambda ids, table: one_hot(ids, V) @ table, ids, table)


@authority("I01", "sklearn.feature_extraction.text.CountVectorizer", of=(vocabulary, bag_of_words))
def sklearn_counts(draw: Draw) -> None:
    """The vocabulary of a corpus, and counts or presence of its words in another one, which has unknown words.

    Counts are integers; they are compared exactly, and once more as the weights of the rows of a table.
    """
    corpus, known, presence = one_of_each(draw)
    other = draw(DOCUMENTS)
    vectorizer = CountVectorizer(analyzer=words_as_they_are, binary=presence).fit(corpus)
    np.testing.assert_array_equal(vectorizer.get_feature_names_out(), known)
    counts, table = vectorizer.transform(other).toarray(), np.random.default_rng(0).normal(size=(len(known), 2))
    np.testing.assert_array_equal(counts, bag_of_words(other, known, presence))
    agrees(counts @ table, lambda table: bag_of_words(other, known, presence) @ table, table)


@authority("I01", "sklearn.feature_extraction.text.TfidfVectorizer", of=(inverse_document_frequency, tf_idf))
def sklearn_tf_idf(draw: Draw) -> None:
    """All variants: smooth or not, sublinear or not, presence, every norm; weights of another corpus too."""
    corpus, known, presence = one_of_each(draw)
    smooth, sublinear = draw(st.booleans()), draw(st.booleans())
    norm = draw(st.sampled_from(["l1", "l2", None]))
    options: dict[str, Any] = {"smooth_idf": smooth, "sublinear_tf": sublinear, "norm": norm, "binary": presence}
    vectorizer = TfidfVectorizer(analyzer=words_as_they_are, **options).fit(corpus)
    counts = bag_of_words(corpus, known, presence)
    agrees(vectorizer.idf_, inverse_document_frequency, counts, smooth)
    other = draw(DOCUMENTS)

    def weigh(counts: Any, others: Any) -> Any:
        return tf_idf(others, inverse_document_frequency(counts, smooth), sublinear, norm)

    for documents in (corpus, other):
        agrees(vectorizer.transform(documents).toarray(), weigh, counts, bag_of_words(documents, known, presence))


@authority("I02", "torch.nn.Embedding", of=(embedding, embedding_backward))
def torch_embedding(draw: Draw) -> None:
    """Rows of a table and its gradient, with repeated and absent words, with and without padding_idx."""
    B, T, V, M = (draw(st.integers(1, 4)) for _ in range(4))
    padding_id = draw(st.none() | st.integers(0, V - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids, weight, cotangent = rng.integers(0, V, (B, T)), rng.normal(size=(V, M)), rng.normal(size=(B, T, M))
    table = torch.nn.Embedding(V, M, padding_idx=padding_id, _weight=torch.tensor(weight))
    out = table(torch.tensor(ids))
    out.backward(torch.tensor(cotangent))
    assert table.weight.grad is not None
    agrees(out.detach().numpy(), embedding, ids, {"weight": weight})
    got = {"weight": table.weight.grad.numpy()}
    agrees(got, embedding_backward, ids, {"weight": weight}, cotangent, padding_id)


@authority("I02", "torch.Tensor.scatter_reduce, mean", of=(average_embedding,))
def torch_mean_of_uses(draw: Draw) -> None:
    """One vector for each word: the mean over its uses, zeros without one."""
    T, V, M = (draw(st.integers(1, 6)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids, uses = rng.integers(0, V, T), rng.normal(size=(T, M))
    index = torch.tensor(ids)[:, None].expand(T, M)
    got = torch.zeros(V, M, dtype=torch.float64).scatter_reduce(0, index, torch.tensor(uses), "mean", include_self=False)
    agrees(got.numpy(), average_embedding, ids, uses, V)


@authority("I14", "sacrebleu.metrics.BLEU", of=(bleu,), examples=100)
def sacrebleu_corpus(draw: Draw) -> None:
    """Corpora of one to three sentences, one or two references each, all smoothings, with and without effective order."""
    B, accepted = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    hypotheses = draw(st.lists(SENTENCES, min_size=B, max_size=B))
    references = draw(st.lists(st.lists(SENTENCES, min_size=accepted, max_size=accepted), min_size=B, max_size=B))
    smoothing, effective = draw(st.sampled_from(["none", "floor", "add-k", "exp"])), draw(st.booleans())
    metric = sacrebleu.BLEU(tokenize="none", smooth_method=smoothing, effective_order=effective, force=True)
    streams = [[" ".join(one[i]) for one in references] for i in range(accepted)]
    score = metric.corpus_score([" ".join(words) for words in hypotheses], streams).score
    agrees(np.asarray(score), lambda *args: 100 * bleu(*args), hypotheses, references, smoothing, effective)
