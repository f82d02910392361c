import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

q = k = torch.ones(1, 2, 1, 1)
v = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
for scale in (0.0, -1.0):
    print("scale", scale, dot_product_attention(q, k, v, is_causal=True, scale=scale).flatten().tolist())
