"""Word embedding: one learned row for each word of the vocabulary, its gradient, and what such a row stands for."""

import numpy as np

from attnspec.reference.cotangent import check_cotangent
from attnspec.reference.parameters import Gradients, Parameters, check_names
from attnspec.reference.shapes import FloatArray, IntArray, ShapeError, check_rank
from attnspec.reference.vocabulary import check_ids


def embedding(ids: IntArray, parameters: Parameters) -> FloatArray:
    """Looks up the row of each word.

        out[b, t] = weight[ids[b, t]]                                                    (1)

    Shapes:  ids [...], as [B,T]  weight [V,M] -> [...,M].
    Units:   those of weight.
    Empty:   no ids give an empty array.
    Errors:  ValueError if weight is missing, a name unknown, or an id out of range; TypeError if ids are not integers;
             ShapeError if weight has not two axes.
    Source:  arXiv:1301.3781 sec. 2.1, the projection layer; arXiv:1706.03762 sec. 3.4.
    Differs: the second paper multiplies the rows by sqrt(d_model); here that is left to the model.
    """
    check_names(parameters, ("weight",))
    weight = np.asarray(parameters["weight"], dtype=np.float64)
    check_rank("weight", weight, "VM")
    return np.take(weight, check_ids("ids", ids, weight.shape[0]), axis=0)


def embedding_backward(
    ids: IntArray, parameters: Parameters, cotangent: FloatArray, padding_id: int | None = None
) -> Gradients:
    """Pulls a cotangent of the output back to the table.

        dweight[v] = sum_{b, t: ids[b, t] = v} do[b, t],  do = cotangent                 (1)
        dweight[padding_id] = 0                                                          (2)

    Shapes:  ids [...]  cotangent [...,M] -> {"weight": [V,M]}.
    Units:   those of the cotangent.
    Empty:   a word that does not occur has a row of exact zeros.
    Errors:  those of embedding; ShapeError if cotangent has not the shape of the output; ValueError if padding_id is out
             of range.
    Source:  the chain rule on (1) of embedding; torch.nn.Embedding for padding_idx.
    Differs: n/a.
    """
    do, shape = np.asarray(cotangent, dtype=np.float64), embedding(ids, parameters).shape
    check_cotangent(do, shape)
    V, M = np.asarray(parameters["weight"]).shape
    words, rows = np.reshape(ids, -1), np.reshape(do, (-1, M) if do.size else (np.size(ids), M))
    learned = words >= 0 if padding_id is None else words != check_ids("padding_id", np.asarray(padding_id), V)
    sums = [np.sum(np.where(((words == v) & learned)[:, None], rows, 0.0), axis=0) for v in range(V)]
    return {"weight": np.reshape(np.stack(sums), (V, M)) if sums else np.zeros((V, M))}


def average_embedding(ids: IntArray, uses: FloatArray, V: int) -> FloatArray:
    """Gives each word the mean of the vectors of its uses: one static vector, whatever the sentence.

        average[v] = mean_{b, t: ids[b, t] = v} uses[b, t]                               (1)

    Shapes:  ids [...]  uses [...,M], one vector for each occurrence -> [V,M].
    Units:   those of uses.
    Empty:   a word without a use has a row of zeros.
    Errors:  ShapeError if uses has not one vector for each id; ValueError and TypeError as in check_ids.
    Source:  the lecture notes: an embedding "captures average meaning". Row v minimises the sum of the squared distances
             to the uses of v.
    Differs: the notes have words for it, and no formula.
    """
    words, uses = check_ids("ids", ids, V), np.asarray(uses, dtype=np.float64)
    if uses.shape[:-1] != words.shape:
        rule = f"it has one vector for each of the ids, whose shape is {words.shape}"
        raise ShapeError(f"uses.shape={uses.shape}: {rule}; pass one vector for each occurrence of a word")
    sums = embedding_backward(words, {"weight": np.zeros((V, uses.shape[-1]))}, uses)["weight"]
    counts = np.bincount(np.reshape(words, -1), minlength=V)
    return sums / np.maximum(counts, 1)[:, None]
