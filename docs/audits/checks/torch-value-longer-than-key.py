import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

q = torch.ones(1, 1, 1, 8)
memory = torch.zeros(1, 1, 6, 8)
memory[:, :, 5] = 7.0
k = memory[:, :, :5]  # five keys, all zero; what follows them in memory is not theirs
v = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 8).contiguous()  # six values: 0, 1, 2, 3, 4, 5
for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
    with sdpa_kernel(backend):
        for values in (v, v[:, :, :4]):
            try:
                out = scaled_dot_product_attention(q, k, values)[0, 0, 0, 0].item()
            except RuntimeError as error:
                out = f"RuntimeError: {error}"
            print(backend.name, values.shape[2], "values for 5 keys:", out)
