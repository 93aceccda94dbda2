"""Zero-shot classification: the class whose name, in a few sentences, lies nearest to an image.

    names, templates -> prompts -> embed_texts -> classes (c, d); images (n, d) -> cosine (n, c) -> top-1, top-5

Radford et al. 2021 (CLIP), https://huggingface.co/papers/2103.00020: a class is the mean of its prompts' embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor

from ..modeling import PretextModel
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject
from .retrieval import CHUNK, check_features, ranks
from .transfer import accuracies

# By ISO 639-1 code. Where a language inflects a noun, or gives it an article by its gender, the name stands alone.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "ar": ("صورة {}.", "صورة فوتوغرافية: {}.", "هذه صورة {}."),
    "de": ("ein Foto von {}.", "ein Bild von {}.", "ein Foto: {}.", "eine Aufnahme, die {} zeigt."),
    "en": ("a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "a close-up of a {}.", "this is a {}."),
    "es": ("una foto de {}.", "una imagen de {}.", "una fotografía que muestra {}.", "en la imagen se ve {}."),
    "fa": ("عکس {}.", "تصویر {}.", "این عکس {} است."),
    "fr": ("une photo de {}.", "une image de {}.", "une photo qui montre {}.", "sur cette image, on voit {}."),
    "id": ("foto {}.", "gambar {}.", "sebuah foto yang menunjukkan {}."),
    "it": ("una foto di {}.", "un'immagine di {}.", "una foto che mostra {}.", "nell'immagine si vede {}."),
    "ja": ("{}の写真。", "{}の画像。", "{}が写っている写真。", "これは{}です。"),
    "ko": ("{} 사진.", "{} 이미지.", "{}의 사진."),
    "pt": ("uma foto de {}.", "uma imagem de {}.", "uma fotografia que mostra {}.", "na imagem vê-se {}."),
    "ru": ("фото: {}.", "фотография: {}.", "на фото: {}."),
    "tr": ("{} fotoğrafı.", "{} resmi.", "bir fotoğraf: {}."),
    "zh": ("一张{}的照片。", "一张{}的图片。", "照片里有{}。", "这是{}。"),
}
# The same for what is drawn: icons, emoji, cartoons.
DRAWINGS: dict[str, tuple[str, ...]] = {
    "ar": ("رسم {}.", "رمز تعبيري: {}.", "أيقونة: {}."),
    "de": ("eine Zeichnung von {}.", "ein Emoji: {}.", "ein Symbol für {}."),
    "en": ("a drawing of a {}.", "an emoji of a {}.", "an icon of a {}.", "a cartoon of a {}."),
    "es": ("un dibujo de {}.", "un emoji de {}.", "un icono de {}."),
    "fa": ("نقاشی {}.", "ایموجی {}.", "نماد {}."),
    "fr": ("un dessin de {}.", "un émoji : {}.", "une icône : {}."),
    "id": ("lukisan {}.", "emoji {}.", "ikon {}."),
    "it": ("un disegno di {}.", "un'emoji di {}.", "un'icona di {}."),
    "ja": ("{}のイラスト。", "{}の絵文字。", "{}のアイコン。"),
    "ko": ("{} 그림.", "{} 이모지.", "{} 아이콘."),
    "pt": ("um desenho de {}.", "um emoji de {}.", "um ícone de {}."),
    "ru": ("рисунок: {}.", "эмодзи: {}.", "значок: {}."),
    "tr": ("{} çizimi.", "{} emojisi.", "{} simgesi."),
    "zh": ("一幅{}的图画。", "{}的表情符号。", "{}的图标。"),
}


def templates_of(given: Sequence[str]) -> list[str]:
    """Templates as they are; for the code of a language its `TEMPLATES`, and for "de-drawings" its `DRAWINGS`.

    Raises `ValueError` for what is neither.
    """
    by_name = {**TEMPLATES, **{f"{language}-drawings": some for language, some in DRAWINGS.items()}}
    templates: list[str] = []
    for one in given:
        if "{}" not in one and one not in by_name:
            raise ValueError(
                "Prompts are sentences with {}, where the name of a class goes, or a language "
                f"({', '.join(TEMPLATES)}; en-drawings for what is drawn), but one is {one!r}."
            )
        templates += [one] if "{}" in one else by_name[one]
    return templates


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Each name in each template: a list for each name. Underscores in names become spaces.

    Raises `ValueError` for no names or templates, an empty name, and a template with no place for it.
    """
    if not len(names) or not len(templates):
        raise ValueError(f"Prompts need names and templates, but there are {len(names)} and {len(templates)}.")
    if lacking := [template for template in templates if "{}" not in template]:
        raise ValueError(f"Template {lacking[0]!r} has no {{}}, where the name of the class goes.")
    cleaned = [" ".join(name.replace("_", " ").split()) for name in names]
    if "" in cleaned:
        raise ValueError(f"The name of class {cleaned.index('')} is empty: {names[cleaned.index('')]!r}.")
    return [[template.replace("{}", name) for template in templates] for name in cleaned]


@torch.no_grad()
def classifier(embed_texts: Callable[[list[str]], Tensor], names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One vector for each class: the mean of its prompts' normalised embeddings, normalised again.

    embed_texts: texts -> `(texts, d)`; called once, with all prompts, to be batched as it likes. Returns
    `(classes, d)`, float32. Raises `ValueError` as `prompts` does, and for embeddings of another number or not finite.
    """
    by_class = prompts(names, templates)
    texts = [text for of_class in by_class for text in of_class]
    embeddings = embed_texts(texts)
    check_features(embeddings=embeddings)
    if len(embeddings) != len(texts):
        raise ValueError(
            f"embed_texts gave {len(embeddings)} embeddings for {len(texts)} texts: it must give each one."
        )
    each = F.normalize(embeddings.float(), dim=1).unflatten(0, (len(names), len(templates)))  # (classes, templates, d)
    return F.normalize(each.mean(1), dim=1)


def zero_shot(
    images: Tensor, classes: Tensor, labels: Tensor | np.ndarray | Sequence[int], chunk: int = CHUNK
) -> dict[str, float]:
    """How often an image's own class is the nearest, or among the five nearest.

    images (`(n, d)`), classes (`(c, d)`): compared by cosine; labels (`(n,)`, integers in 0..c-1). A class as near as
    the right one, such as one of the same name, counts against it (see `ranks`). Returns `{"top1", "top5",
    "mean_class"}`, mean_class being the mean of the top-1 accuracies of the classes that occur; top5 is always 1.0
    where there are no more than 5 classes. Raises `ValueError` for shapes or lengths that don't fit, features that are
    not finite, no images, labels that are no integers or outside the classes, and a chunk below 1.
    """
    check_features(images=images, classes=classes)
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{len(images)} images have {len(labels)} labels: give each image one label.")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, (n,), but are {labels.dtype}, {labels.shape}.")
    if labels.min() < 0 or labels.max() >= len(classes):
        strange = labels[(labels < 0) | (labels >= len(classes))][0]
        raise ValueError(f"Label {strange} is none of the {len(classes)} classes, 0 to {len(classes) - 1}.")
    labels = labels.astype(np.int64)  # of unsigned ones, no class is -1
    wanted = torch.as_tensor(labels, device=images.device)
    given = torch.arange(len(classes), device=images.device)
    rank = ranks(images, classes.to(images.device), wanted, given, chunk).cpu().numpy()
    metrics = accuracies(labels, np.where(rank == 1, labels, -1))
    return {"top1": metrics["top1"], "top5": float((rank <= 5).mean()), "mean_class": metrics["mean_class"]}


# the measure


@strict
@dataclass
class ZeroShotArguments:
    """How zero-shot classification is measured.

    prompts: Prompt templates with {} for the class name, whose embeddings are averaged; or a language whose templates
        are taken: en, de, fr, es, zh, ja... for photographs, en-drawings... for what is drawn. Default: en.
    """

    _argument_group_name: ClassVar[str] = "zero-shot classification"

    prompts: list[str] | None = None

    @property
    def templates(self) -> list[str]:
        """The prompt templates."""
        return templates_of(self.prompts or ["en"])

    def validate_prompts(self):
        templates_of(self.prompts or [])


PREFIX = "zero_shot_"
WORDS = {"top1": "top-1", "top5": "top-5", "mean_class": "per class"}


def compute(subject: Subject, split: str = "test") -> Metrics:
    """`zero_shot` of the labelled images of a split, by the names of their labels."""
    labels, options = subject.labelled.labels, subject.options.get(ZeroShotArguments) or ZeroShotArguments()
    classes = classifier(
        lambda sentences: subject.embed("text", subject.text_batches(sentences)), labels.names, options.templates
    )
    images = subject.embeddings("image", split)[: len(labels.splits[split])]
    return {f"{PREFIX}{name}": value for name, value in zero_shot(images, classes, labels.splits[split]).items()}


def chance_of(labelled: LabelledSet, model_class: type[PretextModel]) -> Metrics:
    """What guessing gets in `compute`."""
    classes = len(labelled.labels.names)
    return {f"{PREFIX}{name}": min(k / classes, 1.0) for name, k in (("top1", 1), ("top5", 5), ("mean_class", 1))}


def words(name: str) -> str | None:
    """ "zero_shot_top1" as "zero-shot, top-1"."""
    return f"zero-shot, {WORDS[name.removeprefix(PREFIX)]}" if name.startswith(PREFIX) else None


def protocol(results: dict) -> str:
    """How it is measured, of the results of a run, in sentences for a card."""
    templates = results["eval_prompts"]
    majority = results.get("transfer", {}).get("figures", {}).get("majority")
    guess = (
        f"; always predicting the majority class is correct in {majority['knn_top1']['mean']:.3f}" if majority else ""
    )
    return (
        f"Zero-shot: the label's name in {len(templates)} prompt template{'s' * (len(templates) > 1)} "
        f"({'; '.join(templates)}) that lies nearest to an image{guess}."
    )


MEASURE = Measure(
    needs=("embed",),
    kinds=("image", "text"),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=(f"{PREFIX}top1", f"{PREFIX}mean_class"),
    options=(ZeroShotArguments,),
    order=2,
)
