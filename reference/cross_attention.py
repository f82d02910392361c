"""Cross-attention: one sequence asks, another answers."""

import numpy as np

from attnspec.reference.multi_head import multi_head_attention
from attnspec.reference.parameters import Parameters
from attnspec.reference.shapes import BoolArray, FloatArray, ShapeError


def cross_attention(
    x: FloatArray, memory: FloatArray, parameters: Parameters, heads: int, *, memory_mask: BoolArray | None = None
) -> FloatArray:
    """Lets each word of one sequence read the words of another; its table of weights is T by S.

        out = multi_head_attention(queries of x, keys and values of memory)              (1)

    Shapes:  x [B,T,M]  memory [B,S,M']  memory_mask [B,S]  parameters as in multi_head_attention -> [B,T,M].
    Units:   memory_mask is True at real words. Each word of x sees all of them: nothing in the memory is in the future.
    Empty:   a sequence without memory gives o.bias, or zero without one.
    Errors:  those of multi_head_attention; ShapeError if memory_mask does not fit the memory.
    Source:  arXiv:1706.03762 sec. 3.2.3, the first of the three uses.
    Differs: n/a.
    """
    if memory_mask is None:
        return multi_head_attention(x, memory, parameters, heads)
    if np.shape(memory_mask) != np.shape(memory)[:2]:
        rule = f"it says of each word of memory whether it is real, [B,S] = {np.shape(memory)[:2]}"
        raise ShapeError(f"memory_mask.shape={np.shape(memory_mask)}: {rule}; pass one entry for each word")
    return multi_head_attention(x, memory, parameters, heads, mask=np.asarray(memory_mask)[:, None, None])
