import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

for dtype in (torch.float32, torch.float16):
    q = torch.ones(1, 1, 1, 1, dtype=dtype)
    k = torch.tensor([0, 1], dtype=dtype).view(1, 2, 1, 1)
    v = torch.tensor([1, 3], dtype=dtype).view(1, 2, 1, 1)
    none = dot_product_attention(q, k, v, mask=torch.zeros(1, 1, 1, 2, dtype=torch.bool)).item()
    print(dtype, "no key visible:", round(none, 2), "no mask:", round(dot_product_attention(q, k, v).item(), 2))
    k = torch.tensor([200, -200], dtype=dtype).view(1, 2, 1, 1)
    second = torch.tensor([False, True]).view(1, 1, 1, 2)
    print(dtype, "key 1 alone visible, its value 3:", dot_product_attention(300 * q, k, v, mask=second).item())
