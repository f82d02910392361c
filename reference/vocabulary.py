"""The vocabulary: which words a model knows, and the number by which it calls each of them."""

from collections.abc import Sequence

import numpy as np

from attnspec.reference.dtypes import check_indices
from attnspec.reference.shapes import IntArray


def vocabulary(corpus: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Lists the distinct words of a corpus, in order of their code points.

        vocabulary = sorted {word : word in document, document in corpus}                (1)

    Shapes:  documents of any lengths -> V words; a word's id is its place in the tuple.
    Units:   n/a.
    Empty:   empty documents are accepted; a corpus without a word is not.
    Errors:  ValueError if the corpus has no word; TypeError if a document is a string, not a sequence of words.
    Source:  the lecture notes, bag of words; scikit-learn's CountVectorizer sorts in this order.
    Differs: tokenisation is the caller's: text.split() cuts at white space. Nothing is lower-cased or left out.
    """
    for n, document in enumerate(corpus):
        if isinstance(document, str):
            raise TypeError(f"corpus[{n}]={document!r}: a document is a sequence of words; pass its split()")
    words = {word for document in corpus for word in document}
    if not words:
        raise ValueError(f"corpus of {len(corpus)} documents without a word: a vocabulary has a word; pass some text")
    return tuple(sorted(words))


def word_ids(words: Sequence[str], vocabulary: Sequence[str], unknown_id: int | None = None) -> IntArray:
    """Replaces each word by its id.

        ids[t] = the v with vocabulary[v] = words[t], else unknown_id                    (1)

    Shapes:  words [T]  vocabulary [V] -> [T].
    Units:   n/a.
    Empty:   no words give no ids.
    Errors:  ValueError if the vocabulary repeats a word; ValueError naming the first word that it lacks, unless
             unknown_id is given; TypeError if words is a string.
    Source:  the lecture notes, one-hot encoding.
    Differs: n/a.
    """
    if isinstance(words, str):
        raise TypeError(f"words={words!r}: they are a sequence of words; pass words.split()")
    ids = {word: v for v, word in enumerate(vocabulary)}
    if len(ids) < len(vocabulary):
        repeated = next(word for v, word in enumerate(vocabulary) if ids[word] != v)
        raise ValueError(f"vocabulary has {repeated!r} twice: a word has one id; remove one of them")
    for t, word in enumerate(words):
        if word not in ids and unknown_id is None:
            raise ValueError(f"words[{t}]={word!r}: it is not among the V={len(ids)} words; pass unknown_id or add it")
    return np.array([ids.get(word, unknown_id) for word in words], dtype=np.int64)


def check_ids(name: str, ids: IntArray, V: int) -> IntArray:
    """Refuses token ids that name no word of the vocabulary.

        0 <= id < V                                                                      (1)

    Shapes:  ids [...] -> the same array, as integers.
    Units:   n/a.
    Empty:   no ids are accepted, whatever V and the type of the empty array.
    Errors:  TypeError if ids are not integers; ValueError naming the first id that is out of range, its position and V.
    Source:  docs/notation.md, axes and sizes.
    Differs: NumPy would count a negative id from the end.
    """
    return check_indices(name, ids, "ids", "V", V, "map unknown words to an id of the vocabulary")
