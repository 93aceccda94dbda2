"""A labelled set of films of two tones with sentences, and a model that reads the tones, for the tests of measures."""

import io
import json
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.text import Text
from hf_pretext.modalities.video import Video, default_video_processor
from hf_pretext.objectives.masked_lm import MaskedLMTask

TONES = ("black", "grey", "white")
PAIRS = [(a, b) for a in range(3) for b in range(3)]  # tone of the first two frames, of the last two
FRAMES = 4


def sentence(pair: tuple[int, int]) -> str:
    """Of two frames of one tone and two of another; of one tone if these are equal."""
    first, second = (TONES[tone] for tone in pair)
    return f"all {second}" if first == second else f"{first} then {second}"


SENTENCES = [sentence(pair) for pair in PAIRS]
CLASSES = ["one" if a == b else "order" for a, b in PAIRS]


def film(tones: list[int]) -> bytes:
    """One frame of each tone, 0 to 2."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        for tone in tones:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 110 * tone, np.uint8))))
        file.mux(stream.encode())
    return buffer.getvalue()


def filmed(folder: Path, frames: int = FRAMES) -> LabelledSet:
    """A film of each of `PAIRS` in each split."""
    rows = []
    for number, (first, second) in enumerate(PAIRS):
        (folder / f"{number}.mp4").write_bytes(film([first, first, second, second]))
        video = {"path": str(folder / f"{number}.mp4"), "bytes": None}
        rows.append({"video": video, "text": SENTENCES[number], "kind": CLASSES[number]})
    (folder / "tables").mkdir()
    for split in ("train", "validation", "test"):
        (folder / "tables" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = train_tokenizer(open_source([{"text": text} for text in SENTENCES], needed=("text",)), size=60)
    inputs = Inputs(Video(default_video_processor(8), frames), Text(tokenizer, 12), pair_label="text")
    return LabelledSet(str(folder / "tables"), inputs, "kind", batch_size=5)


class Watching(nn.Module):
    """Embeds a film and its sentence alike, by the tones of the first and the last frame; or by the last one alone."""

    inputs = ("text", "video")
    capabilities = ("embed",)
    match_is_cosine = True

    def __init__(self, labelled: LabelledSet, last_alone: bool = False):
        super().__init__()
        tokenizer = labelled.inputs.by_name["text"].tokenizer
        self.sentences = {
            tuple(tokenizer(text)["input_ids"]): pair for text, pair in zip(SENTENCES, PAIRS, strict=True)
        }
        self.last_alone, self.vocabulary, self.read = last_alone, len(tokenizer), 0
        special = sorted(tokenizer.all_special_ids)
        self.task = MaskedLMTask(mask_token_id=tokenizer.mask_token_id, special_token_ids=special)

    def pairs_of_texts(self, input_ids, attention_mask):
        return [
            self.sentences[tuple(ids[mask.bool()].tolist())]
            for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]

    def condense(self, kind, pixel_values_videos):
        assert kind == "video" and pixel_values_videos.ndim == 5
        self.read += len(pixel_values_videos)
        return {"tones": ((pixel_values_videos[:, :, 0, 0, 0] + 1) * 127.5 / 110).round().long()}  # (B, F)

    def pairs_of_films(self, tones=None, **frames):
        tones = self.condense("video", **frames)["tones"] if tones is None else tones
        return [(each[-1] if self.last_alone else each[0], each[-1]) for each in tones.tolist()]

    def embed(self, kind, **columns):
        pairs = self.pairs_of_texts(**columns) if kind == "text" else self.pairs_of_films(**columns)
        return F.one_hot(torch.tensor([PAIRS.index(pair) for pair in pairs]), len(PAIRS)).float()

    def match(self, input_ids, attention_mask, **film):
        texts = self.pairs_of_texts(input_ids, attention_mask)
        return torch.tensor([float(a == b) for a, b in zip(texts, self.pairs_of_films(**film), strict=True)])

    def predict_tokens(self, masked, input_ids, attention_mask, **film):
        logits = torch.zeros(*masked.shape, self.vocabulary)
        by_pair = {pair: ids for ids, pair in self.sentences.items()}
        for row, pair in enumerate(self.pairs_of_films(**film) if film else ()):
            for place, token in enumerate(by_pair[pair][: masked.shape[1]]):
                logits[row, place, token] = 1.0
        return logits[masked]


def with_capabilities(*names: str) -> type[Watching]:
    return type("Capable", (Watching,), {"capabilities": names})
