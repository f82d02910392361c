import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

q = torch.ones(1, 1, 1, 8)
memory = torch.zeros(1, 6, 1, 8)
v = torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 1, 8).contiguous()
print("4 values for 5 keys:", dot_product_attention(q, memory[:, :5], v[:, :4])[0, 0, 0, 0].item())
