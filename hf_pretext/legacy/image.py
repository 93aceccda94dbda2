"""Pictures: a processor, random crops, kNN and a linear probe beside raw pixels, neighbours to look at.

--dataset -> rows {"image"} -> pixel_values (B, 3, S, S)
"""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ..data.sources import open_source
from ..encoders import encoder_config
from ..evaluation.comparison import pixel_transfer
from ..evaluation.knn import TEMPERATURE, K, neighbours
from ..evaluation.labelled import LabelledImages
from ..evaluation.transfer import METHODS
from ..features import extract
from ..modalities.image import Augmentation, ImageArguments, check_processor, load_processor
from ..modalities.image import Image as ImageProcessing
from ..stream.mixture import Mixture
from . import Modality

if TYPE_CHECKING:
    from ..run.experiment import Run

QUERIES, NEIGHBOURS = 8, 6  # of the report


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
        self.evaluation_processing = ImageProcessing(processor, None, run.stream.max_image_pixels)
        check_processor(self.evaluation_processing)

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


def evenly(count: int, wanted: int) -> list[int]:
    """`wanted` indices spread over `count`; all of them where there are less."""
    return sorted({i * count // wanted for i in range(wanted)})
