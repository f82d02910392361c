import torch
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

torch.manual_seed(0)
config = T5Config(vocab_size=97, d_model=64, d_ff=48, d_kv=16, num_layers=2, num_heads=4, initializer_factor=8.0)
model = T5ForConditionalGeneration(config).eval()
source, begun = torch.randint(3, 97, (1, 5)), torch.randint(3, 97, (1, 4))
plain = GenerationConfig(max_new_tokens=3, decoder_start_token_id=int(begun[0, 0]), eos_token_id=None, pad_token_id=0)
kept = GenerationConfig(**plain.to_diff_dict() | {"return_dict_in_generate": True})
first = model.generate(source, decoder_input_ids=begun, generation_config=kept)
more = torch.cat([first.sequences, torch.randint(3, 97, (1, 2))], dim=1)
length, read = first.past_key_values.get_seq_length(), []


def note(*call):
    read.append(call[-1]["input_ids"].shape[1])


model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
for name, mask in (("no mask", {}), ("a mask of ones", {"decoder_attention_mask": torch.ones_like(more)})):
    past = model.generate(source, decoder_input_ids=begun, generation_config=kept).past_key_values
    read.clear()
    model.generate(source, decoder_input_ids=more, past_key_values=past, generation_config=plain, **mask)
    print(f"{more.shape[1]} words, {length} of them in the cache, {name}: the first call reads {read[0]}")
