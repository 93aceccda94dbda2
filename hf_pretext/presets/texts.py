"""Configs of fresh encoders of texts."""

from transformers import PreTrainedConfig

SMALL = {
    "vocab_size": 8000,
    "max_length": 256,
    "per_device_train_batch_size": 16,
    "learning_rate": 2e-3,
    "adam_beta2": 0.98,
    "weight_decay": 0.01,
}
LARGE = {"vocab_size": 32_000, "max_length": 512, "per_device_train_batch_size": 64, "learning_rate": 5e-4}
DROPOUT = 0.1  # ModernBERT has none by default, but SimCSE needs it
WIDTH, LAYERS = 512, 8  # of large encoders: BERT-medium


def modernbert(
    vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 2
) -> PreTrainedConfig:
    """Returns the config of a small ModernBERT (rotary positions, norm before each block)."""
    from transformers import ModernBertConfig

    return ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 3 // 2,
        max_position_embeddings=max_length,
        global_attn_every_n_layers=1,  # sequences are short: every layer attends to the whole document
        pad_token_id=pad_token_id,
        bos_token_id=2,  # [CLS] and [SEP] of the tokenizer that the recipe trains
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    )


def wide_modernbert(
    vocab_size: int, max_length: int, pad_token_id: int, width: int = 256, layers: int = 2
) -> PreTrainedConfig:
    """Returns the config of a ModernBERT of width 256: of all changes that were tried, width helps the probes most."""
    return modernbert(vocab_size, max_length, pad_token_id, width, layers)


def three_layers(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns the config of a ModernBERT with 3 layers, for replaced tokens. Its generator has 2.

    A generator of 1 layer, or one with norms after each block (ELECTRA's), predicts no more than the frequencies of
    words for most of so short a run, and what it fills in teaches the encoder nothing.
    """
    return modernbert(vocab_size, max_length, pad_token_id, layers=3)


def tiny_modernbert(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return modernbert(vocab_size, max_length, pad_token_id, width=32, layers=2)


def large_modernbert(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns the config of a ModernBERT of the size of BERT-medium."""
    return modernbert(vocab_size, max_length, pad_token_id, WIDTH, LAYERS)


def modernbert_with_dropout(
    vocab_size: int, max_length: int, pad_token_id: int, width: int = 128, layers: int = 2
) -> PreTrainedConfig:
    """Returns the config of the small ModernBERT, but with dropout."""
    config = modernbert(vocab_size, max_length, pad_token_id, width, layers)
    config.embedding_dropout = config.attention_dropout = config.mlp_dropout = DROPOUT
    return config


def tiny_modernbert_with_dropout(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return modernbert_with_dropout(vocab_size, max_length, pad_token_id, width=32, layers=2)


def large_modernbert_with_dropout(vocab_size: int, max_length: int, pad_token_id: int) -> PreTrainedConfig:
    """Returns the config of a ModernBERT of the size of BERT-medium, with dropout."""
    return modernbert_with_dropout(vocab_size, max_length, pad_token_id, WIDTH, LAYERS)


def llama(
    vocab_size: int,
    max_length: int,
    pad_token_id: int,
    bos_token_id: int | None,
    eos_token_id: int | None,
    width: int = 128,
    layers: int = 2,
) -> PreTrainedConfig:
    """Returns the config of a small Llama (rotary positions, norm before each block, gated feed-forward layers).

    The head over the vocabulary shares the embeddings.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 3 // 2,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=pad_token_id,
        bos_token_id=bos_token_id,
        eos_token_id=eos_token_id,
    )


def tiny_llama(
    vocab_size: int, max_length: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int | None
) -> PreTrainedConfig:
    """Returns a tiny config for --smoke."""
    return llama(vocab_size, max_length, pad_token_id, bos_token_id, eos_token_id, width=32, layers=2)


def large_llama(
    vocab_size: int, max_length: int, pad_token_id: int, bos_token_id: int | None, eos_token_id: int | None
) -> PreTrainedConfig:
    """Returns the config of a Llama of width 512 and 8 layers."""
    return llama(vocab_size, max_length, pad_token_id, bos_token_id, eos_token_id, WIDTH, LAYERS)


def clip_text(
    vocab_size: int, max_length: int, pad_token_id: int, eos_token_id: int, width: int, layers: int
) -> PreTrainedConfig:
    """Returns the config of CLIP's text transformer, for pairs of a text and an image or a film."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        intermediate_size=width * 4,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        bos_token_id=None,  # not the default, which is an id of CLIP's vocabulary
        eos_token_id=eos_token_id,
    )
