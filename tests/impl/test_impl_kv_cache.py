"""impl.kv_cache: views of one memory, and every refusal leaves it as it was."""

import re
import runpy

import pytest
import torch

from attnspec import impl
from attnspec.impl.kv_cache import KeyValueCache


def raises(message: str, call, *args, **kwargs) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


def test_cache_shows_views_of_one_memory():
    cache, k, v = KeyValueCache(1, 2, 5, 3, 4), torch.arange(30.0).view(1, 2, 5, 3), torch.arange(40.0).view(1, 2, 5, 4)
    for start, end in ((0, 2), (2, 5)):
        k_all, v_all = cache.append(k[:, :, start:end], v[:, :, start:end])
        assert torch.equal(k_all, k[:, :, :end])
        assert torch.equal(v_all, v[:, :, :end])
        assert (k_all.data_ptr(), v_all.data_ptr()) == (cache.keys.data_ptr(), cache.values.data_ptr())
    message = "length=5, T=1, max_length=5: length + T must stay within max_length; call reset() or build a longer cache"
    raises(message, cache.append, k[:, :, :1], v[:, :, :1])
    assert cache.length == 5


def test_cache_errors():
    message = "B=1, G=1, max_length=0, D=1, E=1: every size of a cache is 1 or more; use a positive number"
    raises(message, KeyValueCache, 1, 1, 0, 1)
    cache, k = KeyValueCache(1, 2, 4, 3), torch.zeros(1, 2, 1, 3)
    sizes = "sizes are those of the cache, T the same for k and v; build the cache with the layer's B, G, D and E"
    raises(f"k=[2, 1, 3], cache=[1, 2, 0, 3]: {sizes}", cache.append, k[0], k)
    raises(f"v=[1, 2, 2, 3], cache=[1, 2, 1, 3]: {sizes}", cache.append, k, torch.zeros(1, 2, 2, 3))
    message = "k=torch.float64, cache=torch.float32: dtypes agree; build the cache like=k"
    raises(message, cache.append, k.double(), k.double())
    rule = "memory written in place has no gradient; decode under torch.no_grad(), train without a cache"
    raises(f"v.requires_grad=True: {rule}", cache.append, k, k.clone().requires_grad_())
    assert cache.length == 0


def test_the_folder_is_not_a_second_package():
    with pytest.raises(ImportError, match=r"^impl is not a package of its own: import attnspec\.impl$"):
        runpy.run_path(impl.__file__, run_name="impl")
