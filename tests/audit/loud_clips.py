"""Sounds that are as loud as their films are bright."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from media import RATE, sound

LEVELS = 12  # of loudness and of brightness


def clip(level: int, random: np.random.Generator) -> tuple[bytes, bytes]:
    """Noise, the louder the higher its level; and a film, the brighter the higher its level."""
    noise = random.uniform(-0.9, 0.9, RATE // 2) * 10 ** ((level - LEVELS) / 6)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            frame = np.full((32, 32, 3), 20 * level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return sound(samples=noise.astype(np.float32)), buffer.getvalue()


def write_clips(files: Path, tables: Path, rows: dict[str, int], levels: Sequence[int]) -> None:
    """Writes sounds and films into a folder, and tables of three splits, with the levels in turn."""
    random = np.random.default_rng(0)
    for split, count in rows.items():
        lines = []
        for i in range(count):
            paths = {kind: files / f"{split}{i}.{end}" for kind, end in (("audio", "wav"), ("video", "mp4"))}
            for path, content in zip(paths.values(), clip(levels[i % len(levels)], random), strict=True):
                path.write_bytes(content)
            lines.append({**{k: {"path": str(path), "bytes": None} for k, path in paths.items()}, "half": i % 2})
        (tables / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
