"""TF-IDF: counts of words, weighted by how few documents have the word."""

from typing import Literal

import numpy as np

from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank


def inverse_document_frequency(counts: IntArray, smooth: bool = True) -> FloatArray:
    """Weighs each word by its rarity in a corpus.

        idf[v] = 1 + ln((B + 1) / (df[v] + 1)) if smooth, else 1 + ln(B / df[v])         (1)
        df[v] = number of the B documents with counts[b, v] > 0                          (2)

    Shapes:  counts [B,V] -> [V].
    Units:   natural logarithm.
    Empty:   without smoothing every word is in some document: ln(B / 0) has no value.
    Errors:  ShapeError if counts has not two axes; ValueError if there is no document, a count is negative, or a word is
             in no document and smooth is False.
    Source:  Spärck Jones, "A statistical interpretation of term specificity" (1972); scikit-learn's TfidfTransformer
             for both forms.
    Differs: textbooks have neither the leading 1, which keeps words that all documents have, nor the smoothing, which
             counts one more document with every word in it.
    """
    counts = _checked(counts)
    B, df = counts.shape[0], np.sum(counts > 0, axis=0)
    if B == 0:
        raise ValueError(f"counts.shape={counts.shape}: a corpus has a document; pass at least one row")
    if not smooth and np.any(df == 0):
        v = int(np.argmax(df == 0))
        raise ValueError(f"df[{v}]=0: without smoothing each word is in a document; pass smooth=True or drop the word")
    idf: FloatArray = 1 + np.log((B + 1) / (df + 1) if smooth else B / df)
    return idf


def tf_idf(counts: IntArray, idf: FloatArray, sublinear: bool = False, norm: Literal["l1", "l2"] | None = "l2") -> FloatArray:
    """Weighs the words of each document, and divides by the length of the row.

        w[b, v] = tf[b, v] idf[v],  tf = counts, or 1 + ln(counts) where counts > 0 with sublinear     (1)
        out[b, v] = w[b, v] / |w[b]|,  |w| = sum_v |w[v]| (l1), sqrt(sum_v w[v]²) (l2), or 1 (None)     (2)

    Shapes:  counts [B,V]  idf [V] -> [B,V].
    Units:   shares of the row's length.
    Empty:   a document without a known word has a row of zeros.
    Errors:  ShapeError if idf does not fit counts; ValueError if norm is none of the three or a count is negative.
    Source:  Salton and Buckley, "Term-weighting approaches in automatic text retrieval" (1988); scikit-learn's
             TfidfTransformer for the variants.
    Differs: n/a.
    """
    counts, idf = _checked(counts), np.asarray(idf, dtype=np.float64)
    if idf.shape != counts.shape[1:]:
        raise ShapeError(f"idf.shape={idf.shape}: it has one weight for each of the V={counts.shape[1]} words; pass [V]")
    if norm not in ("l1", "l2", None):
        raise ValueError(f"norm={norm!r}: it is one of 'l1', 'l2', None; pass one of these")
    tf = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0.0) if sublinear else counts
    weights: FloatArray = tf * idf
    if norm is None:
        return weights
    sums = np.sum(np.abs(weights) if norm == "l1" else np.square(weights), axis=1, keepdims=True)
    length = sums if norm == "l1" else np.sqrt(sums)
    return weights / np.where(length == 0, 1.0, length)


def _checked(counts: IntArray) -> IntArray:
    counts = np.asarray(counts)
    check_rank("counts", counts, "BV")
    if not np.all(counts >= 0):
        raise ValueError(f"counts={np.min(counts)}: a count is at least 0; pass the rows of bag_of_words")
    return counts
