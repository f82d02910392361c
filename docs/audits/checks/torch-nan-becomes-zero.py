import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

x = torch.ones(1, 1, 3, 4)
spoiled = x.clone()
spoiled[0, 0, 0, 0] = torch.nan
for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
    with sdpa_kernel(backend):
        query = scaled_dot_product_attention(spoiled, x, x)  # query 0 is NaN: so is every score of row 0
        key = scaled_dot_product_attention(x, spoiled, x, is_causal=True)  # row 0 sees key 0 alone, which is NaN
    print(backend.name, "NaN in query 0:", query[0, 0, :, 0].tolist(), "NaN in key 0, causal:", key[0, 0, :, 0].tolist())
