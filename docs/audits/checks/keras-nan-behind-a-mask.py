import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

q = k = torch.ones(1, 2, 1, 1)
v = torch.tensor([1.0, torch.nan]).view(1, 2, 1, 1)
hidden = torch.tensor([[True, False], [True, False]]).view(1, 1, 2, 2)
print(dot_product_attention(q, k, v, mask=hidden).flatten().tolist())
