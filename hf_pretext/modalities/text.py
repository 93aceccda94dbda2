"""Texts: a tokenizer, brought or trained; documents packed side by side; probes that know few labels, beside TF-IDF.

--dataset -> rows {"text"} -> tokens, once -> packed rows {"input_ids", "document_ids", ...} (B, L)
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import has_file

from ..data.corpus import BatchedTexts, PackedTexts, TextProcessing, fingerprint, room, source_of, tokenised
from ..data.sources import Source, open_source
from ..data.tokenizer import train_tokenizer
from ..encoders import encoder_config
from ..evaluation.labelled_texts import LabelledTexts, tfidf_transfer
from ..evaluation.transfer import label_fractions
from ..features import positions
from ..interop.sentence_transformers import write_modules
from ..stream.mixture import Mixture
from ..stream.settings import TextArguments
from ..utils.paths import relative
from . import Modality

if TYPE_CHECKING:
    from ..run.experiment import Run

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
OPEN_CLIP = "open_clip:"  # before the name of an open_clip model, whose tokenizer is taken
PROBED_LENGTH = 128  # tokens that show whether an architecture packs
GUESSED, GUESSES = 6, 4  # hidden words that the report shows, and guesses of each
GUESSED_FROM, LONG = 16, 4  # the first words of a text are shown; letters of a word that is worth guessing


class Texts(Modality):
    samples = "sequences"
    methods = label_fractions(0.01, 0.1, 1.0)

    def __init__(self, run: "Run"):
        self.run = run
        self.own, self.samples = run.build(TextArguments), "sequences"
        options = run.options
        self.config = encoder_config(options.encoder, "text") if options.encoder else None
        columns = {"text": self.own.text_column}
        self.texts = [
            open_source(dataset, options.split, columns, ("text",), self.own.sample_by) for dataset in run.datasets()
        ]
        with PartialState().main_process_first():  # the others find what it has made
            self.tokenizer, self.brought_by = find_tokenizer(self.own, options.encoder, lambda: self.texts[0])
        self.config = self.config or run.encoder_shape()(
            len(self.tokenizer), self.own.max_length, self.tokenizer.pad_token_id
        )
        check_vocabulary(self.tokenizer, self.brought_by, self.config.vocab_size, options.encoder)
        room(self.tokenizer, self.own.max_length)
        self.processing = TextProcessing(self.tokenizer, self.own.max_length)
        run.task = run.objective.complete(run.task, {"text": self.tokenizer})

    def open(self) -> Mixture:
        own, run = self.own, self.run
        model, _ = run.fresh(run.first.seed)
        _, there = positions(model.encoder)
        if there is not None and own.max_length > there:
            raise ValueError(
                f"--max_length {own.max_length} is more than the {there} positions of "
                f"{run.options.encoder or 'the encoder'}. Give --max_length {there} or less."
            )
        self.packs = model.packs(min(own.max_length, PROBED_LENGTH))
        with PartialState().main_process_first():
            tokens = [tokenised(source, self.tokenizer) for source in self.texts]
        if self.packs:
            self.rows = [PackedTexts(of_source, self.tokenizer, own.max_length) for of_source in tokens]
        else:
            self.samples = "batches"
            size = run.first.per_device_train_batch_size
            self.rows = [BatchedTexts(of_source, self.tokenizer, own.max_length, size) for of_source in tokens]
        sources = [source_of(*pair, self.tokenizer) for pair in zip(self.rows, self.texts, strict=True)]
        return Mixture(sources, run.options.mixture_weights)

    def precision(self, args) -> torch.dtype | None:
        return torch.bfloat16 if args.bf16 else None

    def adjusted(self, values: dict) -> dict:
        return values if self.packs else {**values, "per_device_train_batch_size": 1}  # each row is a whole batch

    def noise(self) -> list[dict[str, Tensor]]:
        """Two sequences as long as any, in two documents each where documents are packed."""
        shape, half = (2, self.own.max_length), self.own.max_length // 2
        random = torch.Generator().manual_seed(0)
        special = set(self.tokenizer.all_special_ids)
        words = torch.tensor([i for i in range(len(self.tokenizer)) if i not in special])
        batch = {
            "input_ids": words[torch.randint(len(words), shape, generator=random)],
            "word_starts": torch.ones(shape, dtype=torch.bool),
        }
        if self.packs:
            return [{**batch, "document_ids": (torch.arange(shape[1]) >= half).long().expand(shape) + 1}]
        return [{**batch, "attention_mask": torch.ones(shape, dtype=torch.long)}]

    def does_not_fit(self, reason: str) -> str:
        return (
            f"Sequences of {self.own.max_length} tokens (--max_length) do not fit "
            f"{self.run.options.encoder or 'the encoder'}: {reason}"
        )

    def labelled(self) -> LabelledTexts:
        options = self.run.options
        return LabelledTexts(
            options.eval_dataset,
            self.tokenizer,
            self.own.max_length,
            options.eval_label,
            self.own.eval_text_column,
            options.eval_rows,
        )

    def baselines(self, labelled: LabelledTexts) -> dict[str, dict]:
        return {"TF-IDF": tfidf_transfer(labelled, self.methods)}

    def panel(self, labelled: LabelledTexts, results: dict):
        """How transfer grows with the labels known, and what the first trained model guesses of hidden words."""
        from ..cards.report import draw_fractions

        guessed = guesses(self.run.trained(self.run.first.output_dir), self.tokenizer, labelled)
        return partial(draw_fractions, transfer=results["transfer"], guesses=guessed), 4.2

    def facts(self) -> dict:
        own = self.own
        return {
            "max_length": own.max_length,
            "tokenizer": {"from": relative(self.brought_by), **told_of(self.tokenizer)},
            "packed": self.packs,
            "padding": float(sum(rows.padding * len(rows) for rows in self.rows) / sum(map(len, self.rows))),
            "tokens": int(sum(rows.pieces.lengths.sum() for rows in self.rows)),
        }

    def finish(self, folder: str) -> None:
        write_modules(folder, self.config.hidden_size, self.own.max_length)


def find_tokenizer(
    own: TextArguments, encoder: str | None, texts: Callable[[], Source], option: str = "--encoder"
) -> tuple[PreTrainedTokenizerBase, str | None]:
    """As --tokenizer says, else the encoder's, else one trained on the texts; and who brought it.

    texts: what it is trained on, asked for only then. option: the one that names the encoder. Raises `ValueError` for a
    --tokenizer that is none, or another than the encoder's.
    """
    asked, theirs = own.tokenizer, load_tokenizer(option, encoder) if encoder else None
    if asked is not None:
        found = load_tokenizer("--tokenizer", asked)
        if found is None:
            raise ValueError(f"--tokenizer {asked} is neither a folder with a tokenizer nor a Hub id of one.")
        if theirs is not None and fingerprint(theirs) != fingerprint(found):
            raise ValueError(
                f"--tokenizer {asked} is not the one that {option} {encoder} was made for: its tokens would mean "
                "other words. Leave --tokenizer out."
            )
        return found, asked
    if theirs is not None:
        return theirs, encoder
    return train_tokenizer(texts(), own.tokenizer_kind, own.vocab_size, own.lowercase, max_length=own.max_length), None


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, brought_by: str | None, vocabulary: int, encoder: str | None
) -> None:
    """Raises `ValueError` for a tokenizer that is not the one that an encoder was made for, by their sizes.

    brought_by: who brought the tokenizer (see `find_tokenizer`). encoder: who brought the encoder, if anybody."""
    tokens = len(tokenizer)
    own = encoder is not None and brought_by == encoder
    if tokens > vocabulary or (tokens < vocabulary and not own):  # many models have a few rows to spare
        trained = f" or set vocab_size to {tokens} in its config.json" if brought_by is None else ""
        raise ValueError(
            f"The tokenizer has {tokens:,} tokens, but {encoder or 'the encoder'} a vocabulary of {vocabulary:,}. "
            f"Give the --tokenizer that it was made for{trained}."
        )


def load_tokenizer(option: str, path: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a folder or Hub id; None where there is none. Raises `ValueError` for a slow one."""
    try:
        if path.startswith(OPEN_CLIP):
            from ..interop.open_clip import tokenizer_of

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


def told_of(tokenizer: PreTrainedTokenizerBase) -> dict:
    """What results.json says of a tokenizer."""
    kind = type(tokenizer.backend_tokenizer.model).__name__
    return {"class": type(tokenizer).__name__, "kind": kind, "tokens": len(tokenizer)}


@torch.no_grad()
def guesses(model, tokenizer: PreTrainedTokenizerBase, labelled: LabelledTexts) -> list[tuple[str, str, str]]:
    """Some texts of test with a word hidden: what stands around it, the word, and the model's likeliest guesses."""
    mask, found = model.task.mask_token_id, []
    texts = [text for text in labelled.texts["test"] if len(text.split()) >= GUESSED_FROM]
    for text in [texts[i * len(texts) // GUESSED] for i in range(GUESSED if texts else 0)]:
        encoded = tokenizer(" ".join(text.split()[:GUESSED_FROM]), return_tensors="pt")
        ids, words = encoded["input_ids"][0], encoded.word_ids()
        single = [i for i, word in enumerate(words) if word is not None and words.count(word) == 1]
        long = [i for i in single if len(tokenizer.decode(ids[i]).strip()) >= LONG]
        if not long:
            continue
        at = long[len(long) // 2]
        hidden = {**encoded, "input_ids": encoded["input_ids"].clone()}
        hidden["input_ids"][0, at] = mask
        logits = model.eval().full_model(**hidden).logits[0, at]
        around = tokenizer.decode(ids[1:at]).strip(), tokenizer.decode(ids[at + 1 : -1]).strip()
        guessed = [tokenizer.decode(token).strip() for token in logits.topk(GUESSES).indices]
        found.append((f"{around[0]} ____ {around[1]}", tokenizer.decode(ids[at]).strip(), guessed))
    return found
