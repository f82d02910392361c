import torch
from transformers import MambaConfig, MambaForCausalLM

torch.manual_seed(0)
config = MambaConfig(vocab_size=96, hidden_size=64, state_size=8, num_hidden_layers=2, initializer_range=0.5)
model = MambaForCausalLM(config).eval()
ids = torch.randint(3, 96, (1, 8))
with torch.no_grad():
    want = model(ids).logits[:, 4:]
    past = model(ids[:, :4], use_cache=True).cache_params
    together = model(ids[:, 4:], cache_params=past, use_cache=True).logits
    past = model(ids[:, :4], use_cache=True).cache_params
    steps = [model(ids[:, t : t + 1], cache_params=past, use_cache=True).logits for t in range(4, 8)]
    apart = torch.cat(steps, dim=1)
largest = want.abs().max()
for name, got in (("one by one", apart), ("four at once", together)):
    off = float((got - want).abs().max() / largest)
    print(
        f"{name}: off by {'more' if off > 0.1 else 'less'} than a tenth of the largest logit"
        if off > 1e-4
        else f"{name}: right"
    )
