import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

q = k = torch.ones(1, 2, 1, 4)
for width in (4, 8):
    v = torch.ones(1, 2, 1, width)
    try:
        out = dot_product_attention(q, k, v, bias=torch.zeros(1, 1, 2, 2), is_causal=True)[0, :, 0, 0].tolist()
    except RuntimeError as error:
        out = f"RuntimeError: {error}"
    print("values of width", width, "beside keys of width 4:", out)
