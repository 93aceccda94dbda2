"""Loads a tokenizer from a folder, the Hub or open_clip, or trains one on the texts of the pretraining data.

Source of texts -> WordPiece, byte-level BPE or Unigram tokenizer, which `AutoTokenizer` loads from the checkpoint
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import has_file

from ..utils.files import made_once
from ..utils.foreign import check_folder, refuse_custom_code
from .corpus import batches, fingerprint, identity
from .decoding import needed
from .remote import digest
from .sources import Source

PAD, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_NAMES = {"cls_token": FIRST, "sep_token": LAST}
CAUSAL_NAMES = {"bos_token": FIRST, "eos_token": LAST}
VERSION = 3  # of the training of tokenizers; caches of other versions are not used
DIGITS = 6  # decimal places of a Unigram token's score
STEP = 1e-4  # difference of the scores that the library gives to characters that it adds only for the alphabet
Kind = Literal["wordpiece", "bpe", "unigram"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
OPEN_CLIP = "open_clip:"  # prefix of the name of an open_clip model
SCHEMAS = ("local-dir:", "hf-hub:")  # prefixes of open_clip names with weights


def brought_tokenizer(asked: str | None, encoder: str | None, option: str) -> PreTrainedTokenizerBase | None:
    """Returns the tokenizer of --tokenizer, else the encoder's; None if neither has one.

    asked: value of --tokenizer. encoder: folder or Hub id of the encoder. option: name of the encoder's option, for
    error messages. Raises `ValueError` if --tokenizer names no tokenizer, or one that differs from the encoder's.
    """
    of_encoder = load_tokenizer(option, encoder) if encoder else None
    if asked is None:
        return of_encoder
    tokenizer = load_tokenizer("--tokenizer", asked)
    if tokenizer is None:
        raise ValueError(
            f"--tokenizer {asked} is neither a folder with a tokenizer nor the Hub id of a tokenizer. Check the path."
        )
    if of_encoder is not None and fingerprint(of_encoder) != fingerprint(tokenizer):
        raise ValueError(
            f"--tokenizer {asked} differs from the tokenizer of {option} {encoder}: its token ids stand for other "
            "words. Leave --tokenizer out."
        )
    return tokenizer


def check_masks(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ValueError` for a tokenizer without attention_mask, as SigLIP's: an empty text would be one of padding,
    like any other text."""
    if "attention_mask" not in tokenizer.model_input_names:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no attention_mask (model_input_names: "
            f"{', '.join(tokenizer.model_input_names)}), so that missing texts of a clip can't be marked. Give one "
            "text for each clip (for mil_nce: --positives nearest), or a tokenizer with attention_mask."
        )


def load_tokenizer(option: str, path: str) -> PreTrainedTokenizerBase | None:
    """Returns the tokenizer of a folder, a Hub id or an open_clip model ("open_clip:ViT-B-32"); None if it has none.

    option: name of the option, for error messages. Raises `ValueError` for a slow tokenizer, an unknown open_clip model
    a missing package, custom code, or a folder with files that can't be read safely."""
    check_folder(path)
    try:
        if path.startswith(OPEN_CLIP):
            tokenizer = tokenizer_of(path.removeprefix(OPEN_CLIP))
        elif any(has_file(path, name) for name in TOKENIZER_FILES):  # otherwise transformers creates an empty one
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        else:
            return None
    except ImportError as error:
        raise ValueError(f"{option} {path}: {error}") from error
    except (OSError, ValueError, TypeError) as error:  # no tokenizer can be loaded
        refuse_custom_code(path, error)
        if path.startswith(OPEN_CLIP):
            raise
        return None
    if not tokenizer.is_fast:
        raise ValueError(
            f"{option} {path}: {type(tokenizer).__name__} is a slow tokenizer, without word indices. Give a fast "
            "tokenizer (PreTrainedTokenizerFast)."
        )
    return tokenizer


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Returns the tokenizer of an open_clip model as a tokenizer of transformers.

    It does not clean texts. open_clip first decodes HTML entities such as `&amp;` and, for SigLIP, removes punctuation
    and capitals. Raises `ValueError` for an unknown name, or a tokenizer without an equivalent in transformers;
    `ImportError` without `open_clip_torch`."""
    open_clip = needed("open_clip", "open_clip")
    if not name.startswith(SCHEMAS) and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name}. Its models: {', '.join(open_clip.list_models()[:8])}, ...")
    loaded = open_clip.get_tokenizer(name)
    inner, ranks = getattr(loaded, "tokenizer", None), getattr(loaded, "bpe_ranks", None)
    if inner is not None:  # already a tokenizer of transformers
        if "siglip" in name.lower():  # SigLIP attends to padding, so it has no attention mask
            inner.model_input_names = ["input_ids"]
        return inner
    if ranks is None:
        raise ValueError(
            f"The tokenizer of the open_clip model {name} ({type(loaded).__name__}) has no equivalent in "
            "transformers. Give another tokenizer."
        )
    first, last = ("<start_of_text>", "<end_of_text>")
    return CLIPTokenizer(
        vocab=dict(loaded.encoder),
        merges=[pair for pair, _ in sorted(ranks.items(), key=lambda entry: entry[1])],
        bos_token=first,
        eos_token=last,
        unk_token=last,
        pad_token=last,  # as in OpenAI's CLIP; open_clip pads with 0, the id of "!"
        model_max_length=loaded.context_length,
    )


def train_tokenizer(
    source: Source,
    kind: Kind = "wordpiece",
    size: int = 8000,
    lowercase: bool = True,
    column: str = "text",
    max_length: int = 512,
    further: Sequence[str] = (),
    add_eos_token: bool = True,
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer on all texts of a source and caches it below `HF_HOME`.

    The same texts give the same tokenizer.

    size: most tokens in the vocabulary, including the five special tokens. lowercase: lowercases and strips accents, as
    uncased BERT does. max_length: `model_max_length` of the tokenizer. further: special tokens that texts may contain,
    which `size` does not count. add_eos_token: False for causal language models, see `trained`. Returns a tokenizer
    that adds `[CLS]` before and `[SEP]` after a text. Raises `ValueError` for a size that is too small for an alphabet.
    """
    from huggingface_hub import constants

    if size < 2 * len(SPECIAL):
        raise ValueError(
            f"A vocabulary of {size} tokens is too small: {len(SPECIAL)} of them are special tokens. "
            f"Give at least {2 * len(SPECIAL)}."
        )
    asked = [
        identity(source, column),
        kind,
        size,
        lowercase,
        max_length,
        VERSION,
        *further,
        *([] if add_eos_token else [False]),
    ]
    folder = Path(constants.HF_HOME) / "hf_pretext" / "tokenizers" / digest(asked)

    def make(temporary: Path) -> None:
        tokenizer = trained(source, kind, size, lowercase, column, max_length, add_eos_token)
        tokenizer.add_tokens([*further], special_tokens=True)
        tokenizer.save_pretrained(temporary)

    return PreTrainedTokenizerFast.from_pretrained(made_once(folder, make))


def trained(
    source: Source, kind: Kind, size: int, lowercase: bool, column: str, max_length: int, add_eos_token: bool = True
) -> PreTrainedTokenizerFast:
    """Trains and returns a tokenizer, without the cache of `train_tokenizer`, which documents the arguments.

    add_eos_token: False for a tokenizer that adds `[CLS]` before a text and nothing after it, like Llama's: its
    `bos_token` is `[CLS]` and its `eos_token` is `[SEP]`. A prompt then has no end."""
    steps = [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()] if lowercase else []
    # Chinese has no spaces between words, so each Chinese character is a word, as in BERT
    apart = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    normalizer = normalizers.Sequence([*steps, normalizers.NFC(), *([apart] if kind == "wordpiece" else [])])
    tokenizer = MAKERS[kind](source, column, size, normalizer)
    tokenizer.normalizer = normalizer
    first, last = ((token, tokenizer.token_to_id(token)) for token in (FIRST, LAST))
    single, pair = f"{FIRST} $A", f"{FIRST} $A {LAST} $B:1"
    if add_eos_token:
        single, pair = f"{single} {LAST}", f"{pair} {LAST}:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[first, last])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        **(BERT_NAMES if add_eos_token else CAUSAL_NAMES),
        mask_token=MASK,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def texts_of(source: Source, column: str) -> Iterator[list[str]]:
    """Yields lists of the texts of a source, without missing, blank or unreadable ones."""
    for texts in batches(source, column):
        yield [text for text in texts if text is not None]


def wordpiece(source: Source, column: str, size: int, normalizer: normalizers.Normalizer) -> Tokenizer:
    """Trains a WordPiece tokenizer whose vocabulary is the same in every process.

    The library numbers the characters within words ("##a") in the order of a hash table, and breaks ties by these
    numbers. So they are given in sorted order, as special tokens, and the vocabulary is copied to a new tokenizer
    in which they are normal tokens."""
    letters = alphabet(source, column, normalizer, most=size // 3)
    inner = [f"##{letter}" for letter in letters if not letter.isspace()]
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
    )
    tokenizer.train_from_iterator(texts_of(source, column), trainer, length=len(source))
    learned = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=UNKNOWN))
    learned.add_special_tokens([*SPECIAL])
    learned.pre_tokenizer, learned.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return learned


def bpe(source: Source, column: str, size: int, normalizer: normalizers.Normalizer) -> Tokenizer:
    """Trains a byte-level BPE tokenizer, as of GPT-2 and RoBERTa; it never needs the unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*SPECIAL], initial_alphabet=letters)
    tokenizer.train_from_iterator(texts_of(source, column), trainer, length=len(source))
    return tokenizer


def unigram(source: Source, column: str, size: int, normalizer: normalizers.Normalizer) -> Tokenizer:
    """Trains a Unigram tokenizer whose vocabulary is the same in every process.

    The library depends on the order of a hash table: the last digits of scores differ, tokens of equal score change
    places, and the scores of characters that it adds only for the alphabet are in that order. So scores are rounded,
    the scores of these characters are assigned again in sorted order, and the tokens are sorted."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL],
        unk_token=UNKNOWN,
        initial_alphabet=alphabet(source, column, normalizer, most=size // 3),
    )
    tokenizer.train_from_iterator(texts_of(source, column), trainer, length=len(source))
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    scores = {token: round(score, DIGITS) for token, score in vocabulary if token not in SPECIAL}
    letters = sorted(token for token in scores if len(token) == 1)
    lowest = min(scores.values()) + STEP * len(letters)
    asked_for = [letter for letter in letters if scores[letter] <= lowest]
    scores |= zip(asked_for, sorted((scores[letter] for letter in asked_for), reverse=True), strict=True)
    ordered = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    learned = Tokenizer(models.Unigram([*((token, 0.0) for token in SPECIAL), *ordered], unk_id=SPECIAL.index(UNKNOWN)))
    learned.add_special_tokens([*SPECIAL])
    learned.pre_tokenizer, learned.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return learned


def alphabet(source: Source, column: str, normalizer: normalizers.Normalizer, most: int) -> list[str]:
    """Returns the `most` frequent characters of a source's normalised texts, sorted."""
    counts = Counter()
    for texts in texts_of(source, column):
        for text in texts:
            counts.update(normalizer.normalize_str(text))
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])


MAKERS = {"wordpiece": wordpiece, "bpe": bpe, "unigram": unigram}
