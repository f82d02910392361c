import torch

from attnspec.impl.attention import attention

q = k = torch.ones(1, 1, 2, 1)
v = torch.tensor([1.0, torch.nan]).view(1, 1, 2, 1)
hidden = torch.tensor([[True, False], [True, False]])
print(attention(q, k, v, mask=hidden).flatten().tolist())
