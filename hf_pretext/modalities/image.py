"""Pictures: a processor, random crops, kNN and a linear probe beside raw pixels, neighbours to look at.

--dataset -> rows {"image"} -> pixel_values (B, 3, S, S)
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedConfig

from ..data.processing import ImageProcessing, load_processor
from ..data.sources import open_source
from ..encoders import encoder_config
from ..evaluation.comparison import pixel_transfer
from ..evaluation.knn import TEMPERATURE, K, neighbours
from ..evaluation.labelled import LabelledImages
from ..evaluation.transfer import METHODS
from ..features import extract
from ..modeling import PretextModel
from ..stream.mixture import Mixture
from ..stream.settings import Augmentation, ImageArguments
from . import Modality

if TYPE_CHECKING:
    from ..run.experiment import Run

QUERIES, NEIGHBOURS = 8, 6  # of the report
TOLERANCE = 0.05  # of normalised pixels: rounding to whole levels of 255 may differ, a mean or a crop must not


class Images(Modality):
    samples = "pictures"
    methods = METHODS

    def __init__(self, run: "Run"):
        self.run = run
        self.own = run.build(ImageArguments)
        self.augmentation = run.build(Augmentation)
        if self.started_from() is not None and "image_size" not in run.given:
            self.own.image_size = None  # the recipe's is for its own encoder; this one brings its own
        self.config = self.make_config()
        size = getattr(getattr(self.config, "vision_config", self.config), "image_size", None)
        processor = load_processor(self.started_from(), self.own.image_size, size if isinstance(size, int) else 224)
        self.pictures = ImageProcessing(processor, self.augmentation, run.stream.max_image_pixels)
        self.processing = self.pictures
        self.processors = {"image": processor}
        self.evaluation_processing = ImageProcessing(processor, None, run.stream.max_image_pixels)
        check_processor(self.evaluation_processing)

    def start(self, model: PretextModel) -> None:
        model.adapt(self.processors)

    def started_from(self) -> str | None:
        """The folder or Hub id that the encoder of pictures comes from, where it is not a fresh one."""
        return self.run.options.encoder

    def make_config(self) -> PreTrainedConfig:
        """That of --encoder, or the recipe's own. Raises `ValueError` for an --encoder that is none of pictures."""
        path = self.run.options.encoder
        return encoder_config(path, "image") if path else self.run.encoder_shape()(self.own.image_size)

    def open(self) -> Mixture:
        options, columns = self.run.options, {"image": self.own.image_column}
        sources = [open_source(dataset, options.split, columns) for dataset in self.run.datasets()]
        return Mixture(sources, options.mixture_weights)

    def noise(self) -> list[dict[str, Tensor]]:
        pixels = torch.randint(0, 256, (2, 3, *self.pictures.size))
        return [{"pixel_values": self.pictures.normalised_(pixels.float())}]

    def does_not_fit(self, reason: str) -> str:
        height, width = self.pictures.size
        expected = getattr(self.config, "image_size", None)
        hint = f" Its config says image_size={expected}." if expected else ""
        encoder = self.run.options.encoder or "the encoder"
        return f"Pictures of {height}x{width} pixels (--image_size) do not fit {encoder}: {reason}{hint}"

    def labelled(self) -> LabelledImages:
        options = self.run.options
        return LabelledImages(
            options.eval_dataset,
            self.evaluation_processing,
            options.eval_label,
            self.own.eval_image_column,
            workers=self.run.first.dataloader_num_workers,
            limit=options.eval_rows,
        )

    def baselines(self, labelled: LabelledImages) -> dict[str, dict]:
        return {"pixels": pixel_transfer(labelled)}

    def panel(self, labelled: LabelledImages, results: dict):
        """Pictures of test beside the nearest ones of train, by the first trained and the first random encoder."""
        from ..cards.report import draw_neighbours

        if not labelled.pixels:  # a set too large to be kept
            return None
        run, pixels, labels = self.run, labelled.pixels, labelled.labels.splits
        encoders = {"trained": run.trained(run.first.output_dir).encoder, "random": run.random(run.first.seed)}
        queries = evenly(len(pixels["test"]), QUERIES)
        found = {}
        for who, encoder in encoders.items():
            layer = results["transfer"]["details"][who][0]["knn"]["layer"]
            bank, asked = (
                extract(
                    run.laid_out(encoder),
                    labelled.batches(split),
                    (layer,),
                    device=run.first.device,
                    description=f"neighbours by the {who} encoder",
                )[layer]
                for split in ("train", "test")
            )
            closest = neighbours(bank, asked[queries], NEIGHBOURS)
            same = labels["train"][closest] == labels["test"][queries][:, None]
            found[who] = (pixels["train"][torch.from_numpy(closest)], same)
        return partial(draw_neighbours, queries=pixels["test"][queries], found=found), 0.8 * len(queries)

    def facts(self) -> dict:
        return {
            "image_size": list(self.pictures.size),
            "augmentation": dataclasses.asdict(self.augmentation),
            "knn": {"k": K, "temperature": TEMPERATURE},
        }


def check_processor(processing: ImageProcessing) -> None:
    """Raises `ValueError` for a processor that does something which our own processing does not: whoever loads it from
    the checkpoint would have other features than ours."""
    height, width = processing.size
    ramp = torch.linspace(0, 255, 3 * (height + 9) * (width + 14)).view(height + 9, width + 14, 3)
    picture = Image.fromarray(ramp.to(torch.uint8).numpy())
    name = type(processing.processor).__name__
    try:
        theirs = processing.processor(picture, return_tensors="pt")["pixel_values"][0]
        batch = processing({"image": picture}, None)
        ours = processing.finish({name: value[None] for name, value in batch.items()})["pixel_values"][0]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The encoder's image processor, {name}, can't be used: {error}. Save one of another kind with the "
            "encoder, as CLIPImageProcessor, or take away its preprocessor_config.json for a default one."
        ) from error
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > TOLERANCE:
        raise ValueError(
            f"The encoder's image processor, {name}, does more than resize, crop, rescale and normalise, so that its "
            "pictures would not be those that were trained on. Save another kind with the encoder, as "
            "CLIPImageProcessor."
        )


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` indices spread over `count`; all of them where there are less."""
    return sorted({i * count // wanted for i in range(wanted)})
