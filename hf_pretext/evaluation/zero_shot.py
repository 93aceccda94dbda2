"""Zero-shot classification: predicts the class whose text embedding is nearest to the image embedding.

    names, templates -> prompts -> embed_texts -> classes (c, d); images (n, d) -> cosine (n, c) -> top-1, top-5

Radford et al. 2021 (CLIP), https://huggingface.co/papers/2103.00020: the embedding of a class is the mean of the
embeddings of its prompts.
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

# By ISO 639-1 code. Names are inserted unchanged, so templates avoid articles and cases that depend on the noun.
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
# Templates for drawings: icons, emoji, cartoons.
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
    """Returns a flat list of templates. Replaces a language code, for example "de", by its `TEMPLATES`, and
    "de-drawings" by its `DRAWINGS`.

    Raises `ValueError` for an item that is neither a template with {} nor such a name.
    """
    by_name = {**TEMPLATES, **{f"{language}-drawings": some for language, some in DRAWINGS.items()}}
    templates: list[str] = []
    for one in given:
        if "{}" not in one and one not in by_name:
            raise ValueError(
                f"The prompt {one!r} is neither a template with {{}} for the class name nor a language. Languages are "
                f"{', '.join(TEMPLATES)} for photographs; add -drawings for drawings, as in en-drawings."
            )
        templates += [one] if "{}" in one else by_name[one]
    return templates


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Inserts each name into each template. Returns a list of prompts for each name. Replaces underscores in names by
    spaces.

    Raises `ValueError` without names or templates, for an empty name, and for a template without {}.
    """
    if not len(names) or not len(templates):
        raise ValueError(f"Prompts need names and templates, but there are {len(names)} and {len(templates)}.")
    if lacking := [template for template in templates if "{}" not in template]:
        raise ValueError(
            f"Template {lacking[0]!r} has no {{}} for the class name. Write {{}} where the name goes, e.g. "
            "'a photo of a {}'."
        )
    cleaned = [" ".join(name.replace("_", " ").split()) for name in names]
    if "" in cleaned:
        raise ValueError(
            f"The name of class {cleaned.index('')} is empty: {names[cleaned.index('')]!r}. Give each class a name."
        )
    return [[template.replace("{}", name) for template in templates] for name in cleaned]


@torch.no_grad()
def classifier(embed_texts: Callable[[list[str]], Tensor], names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Computes one embedding for each class: the mean of the normalised embeddings of its prompts, normalised again.

    embed_texts: texts -> `(texts, d)`; called once, with all prompts. Returns `(classes, d)`, float32. Raises
    `ValueError` like `prompts`, for a wrong number of embeddings, and for embeddings that are not finite.
    """
    by_class = prompts(names, templates)
    texts = [text for of_class in by_class for text in of_class]
    embeddings = embed_texts(texts)
    check_features(embeddings=embeddings)
    if len(embeddings) != len(texts):
        raise ValueError(
            f"embed_texts returned {len(embeddings)} embeddings for {len(texts)} texts. It must return one for each."
        )
    each = F.normalize(embeddings.float(), dim=1).unflatten(0, (len(names), len(templates)))  # (classes, templates, d)
    return F.normalize(each.mean(1), dim=1)


def zero_shot(
    images: Tensor, classes: Tensor, labels: Tensor | np.ndarray | Sequence[int], chunk: int = CHUNK
) -> dict[str, float]:
    """Computes top-1 and top-5 accuracy of zero-shot classification.

    images (`(n, d)`), classes (`(c, d)`): embeddings, compared by cosine. labels (`(n,)`, integers in 0..c-1). chunk:
    images at a time. Ties count as errors, so classes with the same name are never correct (see `ranks`).
    Returns `{"top1", "top5", "mean_class"}`; mean_class is the mean of the top-1 accuracies of the classes in `labels`.
    With at most 5 classes, top5 is 1.0. Raises `ValueError` for shapes or lengths that do not fit, features that are
    not finite, empty input, labels that are no integers or out of range, and a chunk below 1.
    """
    check_features(images=images, classes=classes)
    labels = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{len(images)} images have {len(labels)} labels: give each image one label.")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, (n,), but are {labels.dtype}, {labels.shape}.")
    if labels.min() < 0 or labels.max() >= len(classes):
        strange = labels[(labels < 0) | (labels >= len(classes))][0]
        raise ValueError(f"Label {strange} is out of range: there are {len(classes)} classes, 0 to {len(classes) - 1}.")
    labels = labels.astype(np.int64)  # unsigned labels can't represent -1 below
    wanted = torch.as_tensor(labels, device=images.device)
    given = torch.arange(len(classes), device=images.device)
    rank = ranks(images, classes.to(images.device), wanted, given, chunk).cpu().numpy()
    metrics = accuracies(labels, np.where(rank == 1, labels, -1))
    return {"top1": metrics["top1"], "top5": float((rank <= 5).mean()), "mean_class": metrics["mean_class"]}


# measure


@strict
@dataclass
class ZeroShotArguments:
    """Settings of zero-shot classification.

    prompts: Either prompt templates with {} for the class name, or a language code with built-in templates: en, de,
        fr, es, zh, ja, ... for photographs; en-drawings, ... for drawings. The embeddings of the templates are
        averaged. If not set: en.
    """

    _argument_group_name: ClassVar[str] = "zero-shot classification"

    prompts: list[str] | None = None

    @property
    def templates(self) -> list[str]:
        """Prompt templates, with languages replaced by their templates."""
        return templates_of(self.prompts or ["en"])

    def validate_prompts(self):
        templates_of(self.prompts or [])


PREFIX = "zero_shot_"
WORDS = {"top1": "top-1", "top5": "top-5", "mean_class": "per class"}


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes `zero_shot` on the labelled images of a split. Classes are the names of the labels."""
    labels, options = subject.labelled.labels, subject.options.get(ZeroShotArguments) or ZeroShotArguments()
    classes = classifier(
        lambda sentences: subject.embed("text", subject.text_batches(sentences)), labels.names, options.templates
    )
    images = subject.embeddings("image", split)[: len(labels.splits[split])]
    return {f"{PREFIX}{name}": value for name, value in zero_shot(images, classes, labels.splits[split]).items()}


def chance_of(labelled: LabelledSet, model_class: type[PretextModel]) -> Metrics:
    """Chance levels of `compute`: the accuracies of a uniformly random class."""
    classes = len(labelled.labels.names)
    return {f"{PREFIX}{name}": min(k / classes, 1.0) for name, k in (("top1", 1), ("top5", 5), ("mean_class", 1))}


def words(name: str) -> str | None:
    """Wording of a metric: "zero-shot, top-1" for "zero_shot_top1"."""
    return f"zero-shot, {WORDS[name.removeprefix(PREFIX)]}" if name.startswith(PREFIX) else None


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    templates = results["eval_prompts"]
    majority = results.get("transfer", {}).get("figures", {}).get("majority")
    guess = (
        f" Always predicting the largest class would give a top-1 accuracy of {majority['knn_top1']['mean']:.3f}."
        if majority
        else ""
    )
    return (
        "Zero-shot: the predicted class is the nearest to the image by cosine. A class embedding is the mean over "
        f"{len(templates)} prompt template{'s' * (len(templates) > 1)} with the name ({'; '.join(templates)}). "
        f"Chance is a uniformly random class.{guess}"
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
