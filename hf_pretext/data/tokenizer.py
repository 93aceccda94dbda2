"""A tokenizer: brought by a folder, the Hub or open_clip, or trained from the texts that are pretrained on.

Source of texts -> WordPiece, byte-level BPE or Unigram -> what `AutoTokenizer` loads from the checkpoint
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import has_file

from ..utils.files import made_once
from .corpus import batches, fingerprint, identity
from .decoding import needed
from .remote import digest
from .sources import Source

PAD, UNKNOWN, FIRST, LAST, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VERSION = 3  # of how a tokenizer is trained: kept ones of another are not taken
DIGITS = 6  # of a Unigram token's score that are kept
STEP = 1e-4  # between the scores that the library gives to letters that are no tokens by their own right
Kind = Literal["wordpiece", "bpe", "unigram"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
OPEN_CLIP = "open_clip:"  # before the name of an open_clip model, whose tokenizer is wanted
SCHEMAS = ("local-dir:", "hf-hub:")  # of open_clip's names that bring weights


def brought_tokenizer(asked: str | None, encoder: str | None, option: str) -> PreTrainedTokenizerBase | None:
    """Returns the tokenizer that --tokenizer asks for, else the encoder's; None where neither brings one.

    option: the one that names the encoder. Raises `ValueError` for a --tokenizer that is none, or is not the encoder's.
    """
    theirs = load_tokenizer(option, encoder) if encoder else None
    if asked is None:
        return theirs
    tokenizer = load_tokenizer("--tokenizer", asked)
    if tokenizer is None:
        raise ValueError(f"--tokenizer {asked} is neither a folder with a tokenizer nor a Hub id of one.")
    if theirs is not None and fingerprint(theirs) != fingerprint(tokenizer):
        raise ValueError(
            f"--tokenizer {asked} is not the one that {option} {encoder} was made for: its tokens would mean "
            "other words. Leave --tokenizer out."
        )
    return tokenizer


def load_tokenizer(option: str, path: str) -> PreTrainedTokenizerBase | None:
    """Returns the tokenizer of a folder, a Hub id or `open_clip:` and a model's name; None where there is none.

    option: the one that names it. Raises `ValueError` for a slow one."""
    try:
        if path.startswith(OPEN_CLIP):
            tokenizer = tokenizer_of(path.removeprefix(OPEN_CLIP))
        elif any(has_file(path, name) for name in TOKENIZER_FILES):  # else transformers would make up an empty one
            tokenizer = AutoTokenizer.from_pretrained(path)
        else:
            return None
    except ImportError as error:
        raise ValueError(f"{option} {path}: {error}") from error
    except (OSError, ValueError, TypeError):  # as each of its files says
        if path.startswith(OPEN_CLIP):
            raise
        return None
    if not tokenizer.is_fast:
        raise ValueError(
            f"{option} {path}: {type(tokenizer).__name__} can't tell where words begin. Give one of the "
            "tokenizers library."
        )
    return tokenizer


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of an open_clip model, as transformers has it; it takes texts as they are: open_clip turns `&amp;`
    and the like into signs first, and for SigLIP leaves out punctuation and capitals. Raises `ValueError` for an
    unknown name, or a tokenizer that transformers can't hold; `ImportError` without `open_clip_torch`."""
    open_clip = needed("open_clip", "open_clip")
    if not name.startswith(SCHEMAS) and name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model {name}. It has {', '.join(open_clip.list_models()[:8])}, ...")
    brought = open_clip.get_tokenizer(name)
    inner, ranks = getattr(brought, "tokenizer", None), getattr(brought, "bpe_ranks", None)
    if inner is not None:  # transformers' own
        if "siglip" in name.lower():  # which sees its padding
            inner.model_input_names = ["input_ids"]
        return inner
    if ranks is None:
        raise ValueError(f"open_clip's {type(brought).__name__}, of {name}, is none that transformers can hold.")
    first, last = ("<start_of_text>", "<end_of_text>")
    return CLIPTokenizer(
        vocab=dict(brought.encoder),
        merges=[pair for pair, _ in sorted(ranks.items(), key=lambda entry: entry[1])],
        bos_token=first,
        eos_token=last,
        unk_token=last,
        pad_token=last,  # as OpenAI's own: 0, with which open_clip pads, is an exclamation mark
        model_max_length=brought.context_length,
    )


def train_tokenizer(
    source: Source,
    kind: Kind = "wordpiece",
    size: int = 8000,
    lowercase: bool = True,
    column: str = "text",
    max_length: int = 512,
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer on all of a source's texts; the same texts give the same tokenizer, which is kept below
    `HF_HOME`.

    size: tokens in the vocabulary at most, the five special ones included. lowercase: also strips accents, as BERT's.
    Returns one that puts `[CLS]` before a text and `[SEP]` after it. Raises `ValueError` for a size without room for
    an alphabet.
    """
    from huggingface_hub import constants

    if size < 2 * len(SPECIAL):
        raise ValueError(f"A vocabulary of {size} tokens is too small: the special ones alone are {len(SPECIAL)}.")
    asked = [identity(source, column), kind, size, lowercase, max_length, VERSION]
    folder = Path(constants.HF_HOME) / "hf_pretext" / "tokenizers" / digest(asked)

    def make(temporary: Path) -> None:
        trained(source, kind, size, lowercase, column, max_length).save_pretrained(temporary)

    return PreTrainedTokenizerFast.from_pretrained(made_once(folder, make))


def trained(
    source: Source, kind: Kind, size: int, lowercase: bool, column: str, max_length: int
) -> PreTrainedTokenizerFast:
    """What `train_tokenizer` keeps."""
    steps = [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()] if lowercase else []
    # each sign of Chinese writing is a word of its own, as in BERT: there are no spaces to go by
    apart = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    normalizer = normalizers.Sequence([*steps, normalizers.NFC(), *([apart] if kind == "wordpiece" else [])])
    tokenizer = MAKERS[kind](source, column, size, normalizer)
    tokenizer.normalizer = normalizer
    first, last = ((token, tokenizer.token_to_id(token)) for token in (FIRST, LAST))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{FIRST} $A {LAST}", pair=f"{FIRST} $A {LAST} $B:1 {LAST}:1", special_tokens=[first, last]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=FIRST,
        sep_token=LAST,
        mask_token=MASK,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def texts_of(source: Source, column: str) -> Iterator[list[str]]:
    """The texts of a source that are there, many at a time."""
    for texts in batches(source, column):
        yield [text for text in texts if text is not None]


def wordpiece(source: Source, column: str, size: int, normalizer: normalizers.Normalizer) -> Tokenizer:
    """The library numbers the letters within words in the order of a hash table, and breaks ties by these numbers; so
    it is given them in order, as if they were special tokens, and what it has learned moves to a tokenizer without."""
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
    """Byte-level, as GPT-2's and RoBERTa's: no text is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*SPECIAL], initial_alphabet=letters)
    tokenizer.train_from_iterator(texts_of(source, column), trainer, length=len(source))
    return tokenizer


def unigram(source: Source, column: str, size: int, normalizer: normalizers.Normalizer) -> Tokenizer:
    """The library goes by the order of a hash table: sums differ in their last digits, tokens of the same score change
    places, and letters that only the alphabet asks for are scored in that order. All is put right afterwards."""
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
    """The letters of a source's texts, the `most` frequent of them, in order."""
    counts = Counter()
    for texts in texts_of(source, column):
        for text in texts:
            counts.update(normalizer.normalize_str(text))
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])


MAKERS = {"wordpiece": wordpiece, "bpe": bpe, "unigram": unigram}
