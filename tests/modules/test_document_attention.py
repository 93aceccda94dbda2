"""Packed documents give the hidden states of documents alone, without a mask of all pairs of tokens."""

import copy
import itertools

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_pretext.modules import packed_attention
from hf_pretext.modules.packed_attention import by_length, in_blocks, lengths_of, one_by_one, way_of, with_mask
from hf_pretext.modules.packing import Packing, document_bounds, positions_inside

SHAPE = dict(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=400, pad_token_id=0, initializer_range=0.1,
)  # fmt: skip
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
GROUPED = SHAPE | dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, bos_token_id=1, eos_token_id=2)
SLIDING = dict(use_sliding_window=True, sliding_window=20, max_window_layers=1)
CONFIGS = {
    "bert": lambda: transformers.BertConfig(**SHAPE, **NO_DROPOUT),
    "roberta": lambda: transformers.RobertaConfig(**SHAPE, **NO_DROPOUT),
    "electra": lambda: transformers.ElectraConfig(**SHAPE, **NO_DROPOUT, embedding_size=32),
    "modernbert": lambda: transformers.ModernBertConfig(
        **{**SHAPE, "num_hidden_layers": 4}, local_attention=40, global_attn_every_n_layers=2,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=400, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        initializer_range=0.1,
        bos_token_id=1, eos_token_id=2,
    ),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED, **SLIDING),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED),
}  # fmt: skip
CAUSAL = ("gpt2", "llama", "qwen2", "qwen3")
LENGTHS = (130, 1, 44, 90, 25)  # with padding: 10 tokens
ROW = 300


def encoder(name: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    return AutoModel.from_config(CONFIGS[name](), attn_implementation=attention)


def packed(padding: int = 10, last: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns tokens and document ids of two packed sequences. The documents of the second one have other lengths."""
    tokens = torch.randint(3, 50, (2, ROW), generator=torch.Generator().manual_seed(1))
    lengths = ((*LENGTHS[:-1], ROW - sum(LENGTHS[:-1]) - padding), (ROW - last - padding, last))
    ids = torch.zeros(2, ROW, dtype=torch.long)
    for row, of_row in zip(ids, lengths, strict=True):
        row[: sum(of_row)] = torch.repeat_interleave(torch.arange(len(of_row)) + 1, torch.tensor(of_row))
    return tokens.masked_fill(ids == 0, 0), ids


def alone(model, tokens, ids) -> torch.Tensor:
    """Returns the hidden states of the documents, each encoded alone, one after the other."""
    documents = [
        row[of_row == i][None] for row, of_row in zip(tokens, ids, strict=True) for i in range(1, of_row.max() + 1)
    ]
    return torch.cat([model(document).last_hidden_state[0] for document in documents])


def of_packed(model, tokens, ids, causal) -> torch.Tensor:
    return model(tokens, **Packing(model, causal).inputs(ids)).last_hidden_state[ids > 0]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("padding", [0, 10])
@pytest.mark.parametrize("way", [None, with_mask, one_by_one, by_length, "eager"])
def test_packed_equals_alone(name, padding, way, monkeypatch):
    """Hidden states and gradients, for each way to compute attention; None is the way that is chosen."""
    if callable(way):
        monkeypatch.setattr(packed_attention, "way_of", lambda query, reach: way)
    model, causal = encoder(name, "eager" if way == "eager" else "sdpa").train(), name in CAUSAL
    tokens, ids = packed(padding)
    expected, found = alone(model, tokens, ids), of_packed(model, tokens, ids, causal)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    parameters = [p for key, p in model.named_parameters() if "pooler" not in key]
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    gradients = [torch.autograd.grad((x * weight).sum(), parameters, allow_unused=True) for x in (expected, found)]
    for one, other in zip(*gradients, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-3)
    leaking = model(tokens, attention_mask=(ids > 0).long()).last_hidden_state[ids > 0]
    assert (leaking - expected).abs().max() > 0.01  # the comparison detects leaks


@pytest.mark.parametrize("name", CONFIGS)
def test_all_these_architectures_pack(name):
    model = encoder(name)
    packing = Packing(model, name in CAUSAL)
    assert packing.attention == "sdpa_of_documents"
    assert all(packing.works(length) for length in (2, 100, ROW))


@pytest.mark.parametrize(("length", "near", "expected"), [
    (100, None, with_mask), (128, 20, with_mask), (300, None, one_by_one), (300, 20, in_blocks), (300, 100, in_blocks),
    (300, 101, one_by_one),
])  # fmt: skip
def test_the_way_depends_on_length_and_window(length, near, expected):
    query = torch.zeros(1, 1, length, 4)
    assert way_of(query, packed_attention.Reach(near=near)) is expected


def test_the_way_on_a_gpu(monkeypatch):
    reach, windows = packed_attention.Reach(), packed_attention.Reach(near=20)
    short, long = torch.zeros(1, 1, 1024, 4, device="meta"), torch.zeros(1, 1, 1025, 4, device="meta")
    assert [way_of(short, reach), way_of(long, reach), way_of(long, windows)] == [with_mask, by_length, in_blocks]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert way_of(long, reach) is with_mask  # one graph for all batches


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("near", [None, 3, 20, 40])
def test_all_ways_give_the_same(causal, near):
    _, ids = packed()
    reach, ids = packed_attention.Reach(causal, near), ids[:, None, None]
    qkv = [torch.randn(2, 3, ROW, 8) for _ in range(3)]
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = with_mask(attend, qkv, ids, reach)
    for way in (one_by_one, by_length, *([in_blocks] if near is not None else [])):
        torch.testing.assert_close(way(attend, qkv, ids, reach), expected, atol=1e-5, rtol=0)


def test_other_masks_are_those_of_transformers_own_attention():
    module, options = torch.nn.Module(), dict(dropout=0.0, scaling=0.3, is_causal=False)
    qkv = [torch.randn(2, 3, 10, 8) for _ in range(3)]
    for mask in (None, torch.rand(2, 1, 10, 10) < 0.7, torch.randn(2, 1, 10, 10)):
        found = packed_attention.sdpa_of_documents(module, *qkv, mask, **options)[0]
        assert torch.equal(found, sdpa_attention_forward(module, *qkv, mask, **options)[0])


def test_padded_texts_give_the_same_as_before():
    one, other = encoder("bert"), encoder("bert")
    Packing(other)
    tokens, ids = packed()
    inputs = dict(input_ids=tokens, attention_mask=(ids > 0).long())
    assert torch.equal(one(**inputs).last_hidden_state, other(**inputs).last_hidden_state)


def test_what_attention_inside_documents_does_not_support_is_refused():
    qkv = [torch.randn(1, 1, 4, 8)] * 3
    with pytest.raises(ValueError, match="does not support position_bias"):
        packed_attention.sdpa_of_documents(torch.nn.Module(), *qkv, torch.ones(1, 1, 1, 4).long(), position_bias=1)


def test_dropout_is_that_of_the_model():
    torch.manual_seed(0)
    model = AutoModel.from_config(transformers.BertConfig(**SHAPE, hidden_dropout_prob=0.0))
    tokens, ids = packed()
    inputs = Packing(model).inputs(ids)
    trained = [model.train()(tokens, **inputs).last_hidden_state for _ in range(2)]
    assert not torch.equal(*trained) and torch.equal(*[model.eval()(tokens, **inputs)[0] for _ in range(2)])


class Largest(TorchDispatchMode):
    """Notes the largest number of elements of a tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *(x.untyped_storage().nbytes() // x.itemsize for x in tensors)])
        return result


@pytest.mark.parametrize("name", ["bert", "modernbert", "llama", "qwen2"])
@pytest.mark.parametrize("way", [None, by_length, with_mask])
def test_no_tensor_has_an_element_for_each_pair_of_tokens(name, way, monkeypatch):
    if way is not None:
        of_window = in_blocks if way is by_length else way
        monkeypatch.setattr(packed_attention, "way_of", lambda _, reach: way if reach.near is None else of_window)
    model, rows, length = encoder(name), 2, 400
    tokens = torch.randint(3, 50, (rows, length))
    ids = (torch.arange(length) // 25 + 1).expand(rows, -1).contiguous()
    inputs = Packing(model, name in CAUSAL).inputs(ids)
    with Largest() as largest:
        model(tokens, **inputs).last_hidden_state.sum().backward()
    pairs = rows * length * length
    assert (largest.elements < pairs / 2) == (way is not with_mask)


def test_inputs_of_a_large_batch_are_small():
    """A mask of these sequences has 8.6 GB in float32, and 2.1 GB in booleans."""
    ids = (torch.arange(8192) // 300 + 1).expand(32, -1).contiguous()
    for name in ("modernbert", "llama"):
        inputs = Packing(encoder(name), name in CAUSAL).inputs(ids)
        tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
        assert sum(value.untyped_storage().nbytes() for value in tensors) <= 2 * ids.nbytes


def test_lengths_are_read_from_the_device_once_for_all_layers():
    model = encoder("modernbert")
    tokens, ids = packed()
    lengths_of.cache_clear()
    model(tokens, **Packing(model).inputs(ids))
    assert lengths_of.cache_info().misses == 1 and lengths_of.cache_info().hits == 1  # two layers have no window


def test_the_attention_is_not_saved(tmp_path):
    model = encoder("bert")
    Packing(model)
    model.save_pretrained(tmp_path)
    assert "sdpa" not in (tmp_path / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    assert AutoModel.from_config(copy.deepcopy(model.config)).config._attn_implementation == "sdpa_of_documents"


def test_an_encoder_keeps_what_it_can_not_exchange():
    assert Packing(encoder("bert", "eager")).attention == "eager"
    falcon = transformers.FalconConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    packing = Packing(AutoModel.from_config(falcon), causal=True)
    assert packing.attention == "sdpa" and packing.works(100)
    assert packing.inputs(packed()[1])["attention_mask"] is None  # transformers finds documents by their positions


def test_positions_and_bounds_of_documents():
    documents = torch.tensor([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 2]])
    assert positions_inside(documents).tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 0, 1, 2, 3, 4, 5]]
    assert lengths_of(documents[:, None, None]) == [3, 2, 2, 1, 6]
    bounds = document_bounds(documents)
    assert bounds["cu_seq_lens_q"].tolist() == [0, 3, 5, 7, 8, 14] and bounds["cu_seq_lens_q"].dtype == torch.int32
    assert bounds["max_length_q"] == bounds["max_length_k"] == 7


def flash_by_hand(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, sliding_window=None, **kwargs
):
    """Flash attention's interface for sequences of different lengths, written with a mask for each of them."""
    rows, heads, length, width = query.shape
    if attention_mask is not None:
        raise ValueError("expected no mask")
    key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    bounds = kwargs.get("cu_seq_lens_q", torch.arange(rows + 1) * length).tolist()
    causal = module.is_causal if is_causal is None else is_causal
    flat = [x.transpose(1, 2).reshape(rows * length, heads, width).transpose(0, 1) for x in (query, key, value)]
    parts = []
    for start, end in itertools.pairwise(bounds):
        apart = torch.arange(end - start)[:, None] - torch.arange(end - start)
        allowed = (apart >= 0) if causal else apart == apart
        if sliding_window is not None:
            allowed = allowed & (apart.abs() < sliding_window)
        scores = flat[0][:, start:end] @ flat[1][:, start:end].transpose(1, 2) * scaling
        parts.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ flat[2][:, start:end])
    return torch.cat(parts, 1).transpose(0, 1).reshape(rows, length, heads, width), None


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("padding", [0, 10])
def test_flash_attention_gets_the_bounds_of_documents(name, padding, monkeypatch):
    """The kernels need a GPU; their interface is replaced by a formula here."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_2", flash_by_hand)
    model = encoder(name)
    tokens, ids = packed(padding)
    expected = alone(model, tokens, ids)
    model.config._attn_implementation = "flash_attention_2"
    found = of_packed(model, tokens, ids, name in CAUSAL)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert Packing(model, name in CAUSAL).works(ROW)


GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", [
    pytest.param("sdpa", marks=GPU), pytest.param("flex_attention", marks=GPU),
    pytest.param("flash_attention_2", marks=[*GPU, pytest.mark.skipif(
        not transformers.utils.is_flash_attn_2_available(), reason="needs flash-attn")]),
])  # fmt: skip
def test_packed_equals_alone_on_a_gpu(name, attention, monkeypatch):
    monkeypatch.setattr(packed_attention, "SHORT_ON_GPU", 128)
    model, tolerance = encoder(name).cuda(), 1e-3
    if attention == "flex_attention" and not model._supports_flex_attn:
        pytest.skip(f"transformers has no flex attention for {name}")
    tokens, ids = (x.cuda() for x in packed())
    if attention == "flash_attention_2":
        model, tolerance = model.bfloat16(), 0.1  # bfloat16 has 8 bits of precision
    expected = alone(model, tokens, ids)
    model.set_attn_implementation(attention)
    found = of_packed(model, tokens, ids, name in CAUSAL)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    found.float().square().sum().backward()
    assert Packing(model, name in CAUSAL).works(ROW)
