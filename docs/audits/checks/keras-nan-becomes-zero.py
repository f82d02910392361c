import os

os.environ["KERAS_BACKEND"] = "torch"

import torch
from keras.ops import dot_product_attention

x = torch.ones(1, 3, 1, 4)
spoiled = x.clone()
spoiled[0, 0, 0, 0] = torch.nan
print("NaN in query 0:", dot_product_attention(spoiled, x, x)[0, :, 0, 0].tolist())
