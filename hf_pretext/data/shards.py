"""Reads any range of samples directly from WebDataset tars.

urls -> positions of the samples (from one pass over a tar's headers; cached on disk) -> rows

Resuming in the middle reads only the needed members. A remote tar is fetched in ranges, not whole.
"""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Features

from .contents import files_of
from .decoding import UNREADABLE
from .remote import cached, digest, file_facts, is_remote, open_file, read_bytes, short_names
from .rows import BLOCK, MEDIA, Rows


class TarRows(Rows):
    """Samples of uncompressed WebDataset tars, local or at any fsspec URL.

    The members of a sample are adjacent and share their name up to the first dot. A piece is `BLOCK` consecutive
    samples; a range of samples is one read."""

    def __init__(self, urls: Sequence[str], columns: Mapping[str, str], features: Features):
        facts = file_facts(urls)
        self.stamp = digest([urls, facts])
        fields = sorted(set(columns.values()))
        index = cached(urls, facts, f"tar {' '.join(fields)}", lambda url: tar_index(url, fields))
        names, counts, places, self.owners = short_names(urls), [], [], []
        for owner, (name, of_file) in enumerate(zip(names, index, strict=True)):
            for first in range(0, len(of_file) - 1, BLOCK):  # the last line marks damage
                counts.append(min(BLOCK, len(of_file) - 1 - first))
                places.append((name, first))
                self.owners.append(owner)
        super().__init__(columns, counts, places, files_of(names, urls, facts), any(map(is_remote, urls)))
        for name, of_file in zip(names, index, strict=True):
            if of_file[-1][0] < 0:
                self.lost.append((name, f"damaged or cut after {len(of_file) - 1:,} samples: the rest is left out"))
        self.urls, self.index, self.fields = list(urls), index, fields
        self.media = {f for f in fields if isinstance(features[f], MEDIA)}

    def url(self, piece: int) -> str:
        return self.urls[self.owners[piece]]

    def read(self, piece: int, start: int, stop: int) -> list[dict]:
        owner, first = self.owners[piece], self.places[piece][1]
        spans = self.index[owner][first + start : first + stop].reshape(stop - start, len(self.fields), 2)
        present = spans[spans[..., 0] >= 0]
        begin = int(present[:, 0].min()) if len(present) else 0
        end = int(present.sum(1).max()) if len(present) else 0
        content = memoryview(read_bytes(self.urls[owner], begin, end))
        return [self._sample(content, begin, span, first + start + i) for i, span in enumerate(spans.tolist())]

    def _sample(self, content: memoryview, begin: int, spans: list[list[int]], number: int) -> dict:
        from datasets.packaged_modules.webdataset.webdataset import WebDataset

        row = {}
        for field, (offset, size) in zip(self.fields, spans, strict=True):
            value = bytes(content[offset - begin : offset - begin + size]) if offset >= 0 else None
            decode = WebDataset.DECODERS.get(field.rsplit(".", 1)[-1].lower())
            if value is not None and field in self.media:
                value = {"bytes": value, "path": f"{number}.{field}"}
            elif value is not None and decode is not None:
                try:
                    value = decode(value)
                except Exception as error:  # JSON, numbers and arrays raise different types
                    return {UNREADABLE: f"damaged {field}: {error}"}
            row[field] = value
        return self._renamed(row)


def tar_index(url: str, fields: Sequence[str]) -> np.ndarray:
    """Returns offset and size in bytes of each field of each sample in a tar, int64 `(samples + 1, 2 * fields)`.

    The offset of a missing field is -1. The last line is 0 for a complete tar, -1 for a damaged or cut one; all samples
    before it are complete."""
    from datasets.packaged_modules.webdataset.webdataset import base_plus_ext

    lines, key, damaged = [], None, False
    with open_file(url, through=True) as handle:
        try:
            with tarfile.open(fileobj=handle, mode="r:") as tar:
                total = handle.seek(0, 2)
                handle.seek(0)
                while (member := tar.next()) is not None:
                    tar.members = []  # otherwise tarfile keeps all members in memory
                    stem, field = base_plus_ext(member.name)
                    if not member.isreg() or stem is None or Path(member.name).name.startswith((".", "__")):
                        continue
                    if member.offset_data + member.size > total:
                        damaged = True
                        break
                    if stem != key:
                        lines.append([-1, 0] * len(fields))
                        key = stem
                    if field in fields:
                        at = 2 * fields.index(field)
                        lines[-1][at : at + 2] = [member.offset_data, member.size]
                if not damaged:  # tarfile also stops at a damaged header; the real end is a block of zeros
                    handle.seek(tar.offset)
                    damaged = handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE)
        except (tarfile.TarError, EOFError, ValueError):  # a damaged header
            damaged = True
    if damaged and lines and all(offset < 0 for offset in lines[-1][::2]):
        lines.pop()  # the incomplete sample at the damage
    lines.append([-1 if damaged else 0] * 2 * len(fields))
    return np.array(lines, np.int64)
