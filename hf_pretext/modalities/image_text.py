"""Pictures with captions: two towers and a processor of both; what the picture tower is worth alone, and both together.

--dataset -> rows {"image", "text", ...} -> pixel_values (B, 3, S, S), input_ids (B, L)
"""

import dataclasses
import itertools
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from accelerate import PartialState
from datasets import Features, Value
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedTokenizerBase, VisionTextDualEncoderProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from ..data.columns import type_name
from ..data.corpus import fingerprint, room
from ..data.pairs import Captions, PairProcessing, captions_of, holds_captions, normalised
from ..data.sources import Source, open_source
from ..encoders import encoder_config, is_shape_alone
from ..evaluation.knn import neighbours
from ..evaluation.labelled_pairs import LabelledPairs, chance_figures, embeddings, pair_figures
from ..evaluation.masked import masked_figures, text_probe
from ..evaluation.matching import KINDS, matching_figures
from ..evaluation.zero_shot import templates_of
from ..features import positions
from ..modeling import PretextModel
from ..modules.dual_encoder import TwoTowers, batch_norms, dual_encoder
from ..stream.mixture import Mixture
from ..stream.settings import PairArguments, TextArguments
from ..utils.paths import relative
from . import image
from .image import evenly
from .text import check_vocabulary, find_tokenizer, told_of

if TYPE_CHECKING:
    from ..run.experiment import Run

TEXTS = Features({"text": Value("string")})
USUAL_SIZE = 224  # pixels, where neither a tower nor --image_size says one
LEARNED_FROM = 1_000_000  # captions that a tokenizer is trained on, at most
QUERIES, FOUND = 8, 6  # of the report
KIND_OF = {"vision": "image", "text": "text"}  # of the names of towers in options
UNMOVED, SAME = 1e-3, 1e-6  # embeddings that differ by less are so by rounding alone, or are the very same


class ImagesAndTexts(image.Images):
    samples = "pairs"

    def __init__(self, run: "Run"):
        self.run = run
        values = {name: value for name, value in run.values.items() if name not in out_of_place(run.given)}
        self.texts, self.pairs = run.build(TextArguments, values=values), run.build(PairArguments, values=values)
        self._check_towers()
        self._check_alone()
        if self.pairs.images_alone or self.pairs.texts_alone:
            self.samples = "samples"
        super().__init__(run)
        vocabulary = self.config.get_text_config().vocab_size
        check_vocabulary(self.tokenizer, self.brought_by, vocabulary, self._text_tower())
        of_both = PROCESSOR_MAPPING.get(type(self.config), VisionTextDualEncoderProcessor)
        processor = of_both(self.pictures.processor, self.tokenizer)
        captions, length = Captions(tuple(self._others()), self.pairs.caption_weights), self.texts.max_length
        label = "text" if self.pairs.pair_label is None else "pair_label"
        self.processing = PairProcessing(self.pictures, processor, length, captions, label)
        self.evaluation_processing = PairProcessing(self.evaluation_processing, processor, length)
        self.processors = {"image": self.pictures.processor, "text": self.tokenizer}
        run.task = run.objective.complete(run.task, self.processors)

    # towers

    def _check_towers(self) -> None:
        towers = {"vision": self.pairs.vision_encoder, "text": self.pairs.text_encoder}
        given = [f"--{name}_encoder" for name, path in towers.items() if path]
        if given and self.run.options.encoder:
            raise ValueError(
                f"--encoder {self.run.options.encoder} brings both towers, so leave out {' and '.join(given)}."
            )
        if given and not issubclass(self.run.objective, TwoTowers):
            raise ValueError(
                f"{' and '.join(given)}: {self.run.objective.objective} has no two towers to put them into. Start from "
                "a whole model with --encoder."
            )
        if self.run.first.per_device_train_batch_size * self.run.first.world_size < 2:
            raise ValueError("A batch of one pair has nothing to tell it from. Give --per_device_train_batch_size 2.")
        frozen = getattr(self.run.task, "frozen", None)
        start = frozen and (towers[frozen] or self.run.options.encoder)
        if frozen and (not start or is_shape_alone(start)):
            raise ValueError(f"--frozen {frozen} would keep a tower at random: give it a --{frozen}_encoder.")

    def _check_alone(self) -> None:
        given = [name for name in ("images_alone", "texts_alone") if getattr(self.pairs, name)]
        if given and not self.run.objective.learns_from_one_kind:
            raise ValueError(
                f"--{' and --'.join(given)}: {self.run.objective.objective} learns from pairs alone. Leave it out."
            )

    def started_from(self) -> str | None:
        return self.run.options.encoder or self.pairs.vision_encoder

    def _text_tower(self) -> str | None:
        return self.run.options.encoder or self.pairs.text_encoder

    def make_config(self) -> PreTrainedConfig:
        """That of --encoder, or the recipe's own with the towers that are brought in their places."""
        given = {  # read before a tokenizer is trained, which may take a while
            kind: encoder_config(path, kind, option) if path else None
            for kind, path, option in (
                ("image_text", self.run.options.encoder, "--encoder"),
                ("image", self.pairs.vision_encoder, "--vision_encoder"),
                ("text", self.pairs.text_encoder, "--text_encoder"),
            )
        }
        if given["image_text"]:
            with torch.device("meta"):
                self.run.objective.native(given["image_text"])  # says what is wrong
        with PartialState().main_process_first():  # the others find what it has made
            self.tokenizer, self.brought_by = self._tokenizer()
        if given["image_text"]:
            return given["image_text"]
        shape = self.own.image_size or USUAL_SIZE, len(self.tokenizer), self.texts.max_length
        own = self.run.encoder_shape()(*shape, self.tokenizer.pad_token_id, end_of_text(self.tokenizer))
        if not (given["image"] or given["text"]):
            return own
        vision, text = given["image"] or own.vision_config, given["text"] or own.text_config
        return dual_encoder(vision, text, own.projection_dim).config

    def start(self, model: PretextModel) -> None:
        super().start(model)
        for name, path in (("vision", self.pairs.vision_encoder), ("text", self.pairs.text_encoder)):
            if path and not is_shape_alone(path):
                tower, info = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
                missing = sorted(info["missing_keys"])
                fresh = [
                    part for part in missing if "pooler." in part and getattr(model.task, "frozen", None) != name
                ]  # it will learn
                if len(fresh) < len(missing):
                    raise ValueError(
                        f"--{name}_encoder {path} lacks weights, which would stay random: {', '.join(missing[:5])}."
                    )
                model.encoders[KIND_OF[name]].load_state_dict(tower.state_dict())

    def checkpoints(self) -> list[str]:
        towers = (self.pairs.vision_encoder, self.pairs.text_encoder)
        return [*super().checkpoints(), *(path for path in towers if path)]

    def begun_from(self) -> str | None:
        towers = {"pictures": self.pairs.vision_encoder, "texts": self.pairs.text_encoder}
        told = [f"{relative(path)} for {what}" for what, path in towers.items() if path]
        return super().begun_from() or ", ".join(told) or None

    # texts

    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase, str | None]:
        option = "--encoder" if self.run.options.encoder else "--text_encoder"
        return find_tokenizer(self.texts, self._text_tower(), self._captions, option)

    def _captions(self) -> Source:
        """What a tokenizer is trained on: the different captions of the data, of all kinds."""
        columns = {name: column for name, column in self._columns().items() if name not in ("image", "pair_label")}
        sources = [self._open(dataset, columns) for dataset in self.run.datasets()]
        of_pairs = [captions_of(source, tuple(columns)) for source in sources]
        texts = itertools.chain(*of_pairs, *(captions_of(source, ("text",)) for source in self._alone("text")))
        different = list(dict.fromkeys(itertools.islice(texts, LEARNED_FROM)))
        if not different:
            raise ValueError(f"{sources[0].name} has no text in its captions: nothing to learn from.")
        return Source([{"text": text} for text in different], {"text": "text"}, "captions", TEXTS)

    def _length(self, model: PretextModel) -> tuple[int, bool]:
        """Tokens that a caption is cut to, and whether all are padded to that. Raises `ValueError` for a --max_length
        that the text tower does not take."""
        length, (_, there) = self.texts.max_length, positions(model.encoders["text"])
        theirs = self._text_tower() is not None and "max_length" not in self.run.given  # the recipe's is for its own
        if there is not None and length > there and not theirs:
            raise ValueError(
                f"--max_length {length} is more than the {there} positions of "
                f"{self._text_tower() or 'the text tower'}. Give --max_length {there} or less."
            )
        longest = min(length, there or length)
        room(self.tokenizer, longest)
        fixed = not pads_freely(model, self.tokenizer, longest)
        return (there if fixed and theirs and there else longest), fixed

    # data

    def _columns(self) -> dict[str, str | None]:
        label = {} if self.pairs.pair_label is None else {"pair_label": self.pairs.pair_label}
        return {"image": self.own.image_column, "text": self.texts.text_column, **self._others(), **label}

    def _others(self) -> dict[str, str]:
        return {f"other_captions/{name}": name for name in self.pairs.other_captions or []}

    def _open(self, dataset: str, columns: dict[str, str | None]) -> Source:
        source = open_source(dataset, self.run.options.split, columns, tuple(columns))
        for canonical, name in self._others().items():
            if not holds_captions(source.features[canonical]):
                kind = type_name(source.features[canonical])
                raise ValueError(
                    f"{source.name}: the column {name!r} (--other_captions) holds {kind} values, which are neither "
                    "texts, nor lists of texts, nor texts by language."
                )
        return source

    def open(self) -> Mixture:
        options, columns = self.run.options, self._columns()
        model, _ = self.run.fresh(self.run.first.seed)
        self.text_class = type(model.encoders["text"]).__name__
        length, fixed = self._length(model)
        for processing in (self.processing, self.evaluation_processing):
            processing.max_length, processing.fixed = length, fixed
        check_tells_apart(model, self.processing)
        piece = getattr(self.run.task, "embed_batch_size", None)
        frozen = KIND_OF.get(getattr(self.run.task, "frozen", None))
        trained = [encoder for kind, encoder in model.encoders.items() if kind != frozen]
        if piece and piece < self.run.first.per_device_train_batch_size and any(map(batch_norms, trained)):
            self.run.say(f"--embed_batch_size {piece}: batch norm normalises each piece of {piece} by itself.")
        sources = [self._open(dataset, columns) for dataset in self.run.datasets()]
        alone = [*self._alone("image"), *self._alone("text")]
        for source in (*sources, *alone):  # a resumed run is told where the tokenizer has become another
            source.rows.files[f"tokenizer {fingerprint(self.tokenizer)}"] = 0
        return Mixture([*sources, *alone], options.mixture_weights, one_source_a_step=bool(alone))

    def _alone(self, kind: str) -> list[Source]:
        """What there is of pictures alone, or of texts alone."""
        named = self.pairs.images_alone if kind == "image" else self.pairs.texts_alone
        options = {"split": self.run.options.split, "columns": {kind: None}, "needed": (kind,)}
        return [open_source(dataset, **options, sample_by=self.texts.sample_by) for dataset in named or []]

    def adjusted(self, values: dict) -> dict:
        alone = self.pairs.images_alone or self.pairs.texts_alone  # then a step has no use for some parameters
        return {**values, "ddp_find_unused_parameters": True} if alone else values

    def noise(self) -> list[dict[str, Tensor]]:
        texts = self.processing.texts([f"{word} " * self.processing.max_length for word in ("a", "b")])
        (pictures,) = super().noise()
        kinds = [{**pictures, **texts}, pictures, {n: v for n, v in texts.items() if n != "labels"}]
        return [
            kinds[0],
            *(kinds[1:2] if self.pairs.images_alone else []),
            *(kinds[2:] if self.pairs.texts_alone else []),
        ]

    def does_not_fit(self, reason: str) -> str:
        height, width = self.pictures.size
        return (
            f"Pictures of {height}x{width} pixels (--image_size) with captions of {self.processing.max_length} tokens "
            f"(--max_length) do not fit {self.run.options.encoder or 'the encoder'}: {reason}"
        )

    # evaluation

    def labelled(self) -> LabelledPairs:
        options = self.run.options
        return LabelledPairs(
            options.eval_dataset,
            self.evaluation_processing,
            options.eval_label,
            self.own.eval_image_column,
            self.texts.eval_text_column,
            workers=self.run.first.dataloader_num_workers,
            limit=options.eval_rows,
        )

    def measures(self, model: PretextModel, labelled: LabelledPairs) -> dict[str, float]:
        device = self.run.first.device
        found = pair_figures(model, labelled, self.pairs.prompts or ["en"], device)
        found |= matching_figures(model, labelled, device)
        if "predict_tokens" in model.capabilities:
            found |= masked_figures(model, labelled, device) | text_probe(model, labelled, device)
        return found

    def by_chance(self, labelled: LabelledPairs) -> dict[str, float]:
        found, objective = chance_figures(labelled), self.run.objective
        found |= {f"threshold_{kind}": 0.5 for kind in KINDS}
        if "match" in objective.capabilities:
            found |= {f"matching_{kind}": 0.5 for kind in KINDS} | {f"matching_gain_{kind}": 0.0 for kind in KINDS}
        if "predict_tokens" in objective.capabilities:
            found |= {f"masked_text_{kind}": 1 / len(self.tokenizer) for kind in ("own", "other", "none")}
            found |= {"masked_text_gain": 0.0, "text_probe": labelled.labels.majority()["top1"]}
        return found

    def panel(self, labelled: LabelledPairs, results: dict):
        """Captions of test with the pictures that the first trained model finds for them, and a map of its pictures."""
        from ..cards.report import draw_pairs

        if not labelled.pixels:  # a set too large to be kept
            return None
        model = self.run.laid_out(self.run.trained(self.run.first.output_dir)).to(self.run.first.device).eval()
        images, captions, texts = embeddings(model, labelled, self.run.first.device, "test")
        asked = evenly(len(captions), QUERIES)
        closest = neighbours(images, texts[asked], FOUND)
        own, pixels = [normalised(caption) for caption in labelled.captions("test")], labelled.all_pixels("test")
        found = {
            captions[query]: (pixels[rows], [own[row] == normalised(captions[query]) for row in rows])
            for query, rows in zip(asked, closest, strict=True)
        }
        labels, names = labelled.labels.splits["test"], labelled.labels.names
        return partial(draw_pairs, found=found, images=images[: len(labels)], labels=labels, names=names), 6.4

    def facts(self) -> dict:
        captions = {k: v for k, v in dataclasses.asdict(self.pairs).items() if not k.endswith("_encoder")}
        alone = {kind: relative(captions.pop(f"{kind}_alone")) for kind in ("images", "texts")}
        return {
            **super().facts(),
            **({"alone": alone} if any(alone.values()) else {}),
            "max_length": self.processing.max_length,
            "padded": "to --max_length" if self.processing.fixed else "to the longest of a batch",
            "tokenizer": {"from": relative(self.brought_by), **told_of(self.tokenizer)},
            "eval_prompts": templates_of(captions.pop("prompts") or ["en"]),
            "captions": captions,
            "towers": {
                "vision": relative(self.pairs.vision_encoder),
                "text": relative(self.pairs.text_encoder),
                "text_class": self.text_class,
            },
        }

    def finish(self, folder: str) -> None:
        cut, self.processing.cut = int(self.processing.cut), 0
        if cut:
            longest = self.processing.max_length
            self.run.say(
                f"{cut:,} of the captions that this process saw were longer than {longest} tokens (--max_length), and "
                "were cut."
            )


def out_of_place(given: Collection[str]) -> set[str]:
    """Options of a recipe that are of its own data alone, by what the command line says."""
    names = set()
    if "dataset" in given:
        names |= {"text_column", "other_captions", "caption_weights", "pair_label", "images_alone", "texts_alone"}
    if "eval_dataset" in given:
        names |= {"eval_text_column", "prompts"}
    if "other_captions" in given:
        names |= {"caption_weights"}
    return names - set(given)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that a tokenizer ends texts with, whatever it calls it."""
    return tokenizer("a")["input_ids"][-1]


@torch.no_grad()
def check_tells_apart(model: PretextModel, processing: PairProcessing) -> None:
    """Raises `ValueError` for a text tower that gives two captions the same embedding, as one does that pools at
    another token than the tokenizer ends a text with."""
    batch = processing.texts(["a", "b c"], labels=False)
    one, other = model.eval().embed("text", **batch)
    if (one - other).abs().max() < SAME:
        ends = getattr(model.config.get_text_config(), "eos_token_id", None)
        puts = end_of_text(processing.tokenizer)
        raise ValueError(
            "The text tower gives different captions the same embedding. It looks for the end of a text at the token "
            f"{ends} (eos_token_id in the text_config of its config.json), where the tokenizer puts {puts}."
        )


@torch.no_grad()
def pads_freely(model: PretextModel, tokenizer: PreTrainedTokenizerBase, length: int) -> bool:
    """Whether a text tower gives a caption the same embedding however far it is padded. SigLIP's pool the last
    position, so that they want all texts of the length they were made for."""
    ids = torch.tensor([tokenizer("a b", truncation=True, max_length=length)["input_ids"]])
    if ids.shape[1] >= length:
        return True
    found = []
    for extra in (0, length - ids.shape[1]):
        inputs = {"input_ids": F.pad(ids, (0, extra), value=tokenizer.pad_token_id)}
        if "attention_mask" in tokenizer.model_input_names:
            inputs["attention_mask"] = F.pad(torch.ones_like(ids), (0, extra))
        found.append(model.eval().embed("text", **inputs))
    return bool((found[0] - found[1]).abs().max() < UNMOVED)
