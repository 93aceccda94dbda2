"""Small captioners, three kinds of tokenizers, and batches of images with captions."""

import torch
import transformers
from conftest import CONFIGS, IMAGE, TEXT
from datasets import Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_pretext import CaptioningForPreTraining
from hf_pretext.data.sources import Source
from hf_pretext.data.tokenizer import trained
from hf_pretext.modalities.text import Text

CAPTIONS = ["red cat", "a small blue bird on a red cat", "dog", "a dog and a bird"]
IDS = dict(start_token_id=1, end_token_id=2, pad_token_id=0)
WORDS = TEXT["vocab_size"]
SMALL = dict(d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=64, pad_token_id=0)
GPT = dict(n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=2, pad_token_id=0)
DECODERS = {
    "gpt2": lambda words=WORDS, length=16: transformers.GPT2Config(vocab_size=words, n_positions=length, **GPT),
    "bert": lambda words=WORDS, length=16: transformers.BertConfig(
        **{**TEXT, "vocab_size": words}, max_position_embeddings=length
    ),
    "roberta": lambda words=WORDS, length=16: transformers.RobertaConfig(
        **{**TEXT, "vocab_size": words}, max_position_embeddings=length + 1, pad_token_id=0
    ),
    "trocr": lambda words=WORDS, length=16: transformers.TrOCRConfig(
        vocab_size=words, max_position_embeddings=length, **SMALL
    ),
}


def model_of(decoder: str = "gpt2", image: str = "vit", words: int = WORDS, length: int = 16, **settings):
    text = DECODERS[decoder](words, length)
    return CaptioningForPreTraining.from_encoders(image=CONFIGS[image](), text=text, **{**IDS, **settings})


def batch_of(count: int = 4, length: int = 8, seed: int = 1) -> dict[str, torch.Tensor]:
    """Captions of several lengths, each between the tokens 1 and 2."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, WORDS, (count, length), generator=random)
    lengths = [length - 2 - i % (length - 3) for i in range(count)]
    for row, words in zip(ids, lengths, strict=True):
        row[0], row[words + 1], row[words + 2 :] = 1, 2, 0
    images = torch.randn(count, 3, IMAGE, IMAGE, generator=random)
    return {"pixel_values": images, "input_ids": ids, "attention_mask": (ids > 0).long()}


def labels_of(input_ids: torch.Tensor) -> torch.Tensor:
    """The labels of a batch of `batch_of`, for transformers' own loss."""
    return input_ids[:, 1:].masked_fill(input_ids[:, 1:] == 0, -100)


def reversed_captions(input_ids: torch.Tensor) -> torch.Tensor:
    turned = input_ids.clone()
    for row in turned:
        end = (row == 2).nonzero()[0, 0]
        row[1:end] = row[1:end].flip(0)
    return turned


def tokenizer_like(name: str) -> PreTrainedTokenizerFast:
    """BERT's adds start and end, GPT-2's neither and has only an end token, and ours is trained on the captions."""
    if name == "ours":
        rows = Source([{"text": text} for text in CAPTIONS], {"text": "text"}, "c", Features({"text": Value("string")}))
        return trained(rows, "wordpiece", 60, True, "text", 16)
    known = sorted({word for text in CAPTIONS for word in text.split()})
    special = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "gpt2": ["<|endoftext|>"]}[name]
    vocabulary = {word: i for i, word in enumerate([*known, *special])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if name == "bert" else special[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    if name == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0], pad_token=special[0], **names)
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **roles, **names)


def captioned(tokenizer: PreTrainedTokenizerFast, max_length: int = 12) -> dict[str, torch.Tensor]:
    """The captions as the modality of texts gives them, with an image each."""
    texts = Text(tokenizer, max_length).batch(CAPTIONS)
    return {**texts, "pixel_values": torch.randn(len(CAPTIONS), 3, IMAGE, IMAGE)}
