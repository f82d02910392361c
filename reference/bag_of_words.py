"""The bag of words: which words a document has, and how often, but not in which order."""

from collections.abc import Sequence

import numpy as np

from attnspec.reference.one_hot import one_hot
from attnspec.reference.shapes import IntArray
from attnspec.reference.vocabulary import word_ids


def bag_of_words(
    corpus: Sequence[Sequence[str]], vocabulary: Sequence[str], presence: bool = False, unknown: str | None = None
) -> IntArray:
    """Counts the words of each document.

        counts[b, v] = sum_t onehot(word[b, t])[v],  or min(1, sum) with presence        (1)

    Shapes:  documents of any lengths -> [B,V], integers.
    Units:   occurrences. Words that the vocabulary lacks are not counted, or counted as the word `unknown` if given.
    Empty:   an empty document has a row of zeros; an empty corpus has no rows.
    Errors:  ValueError if unknown is not in the vocabulary, and as in word_ids; TypeError if a document is a string.
    Source:  the lecture notes, bag of words; scikit-learn's CountVectorizer, which drops unknown words too.
    Differs: tokenisation is the caller's: text.split() cuts at white space.
    """
    known = set(vocabulary)
    if unknown is not None and unknown not in known:
        raise ValueError(f"unknown={unknown!r}: it is one of the V={len(known)} words; add it to the vocabulary")
    counts = [np.zeros((0, len(vocabulary)))]
    for document in corpus:
        if isinstance(document, str):
            raise TypeError(f"document={document!r}: it is a sequence of words; pass its split()")
        words = [word if word in known else unknown for word in document]
        ids = word_ids([word for word in words if word is not None], vocabulary)
        counts.append(np.sum(one_hot(ids, len(vocabulary)), axis=0, keepdims=True))
    table = np.concatenate(counts).astype(np.int64)
    return np.minimum(table, 1) if presence else table
