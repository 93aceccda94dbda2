"""Reads any range of rows directly from Parquet files.

urls -> row groups (from the footers; cached on disk) -> rows

Resuming in the middle reads only the needed row groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

from .contents import files_of
from .remote import READ_AHEAD, cached, digest, file_facts, is_remote, open_file, short_names
from .rows import Rows

# Readers stay open in the middle of a row group, so each must use little memory for row groups of any size
AT_ONCE = 16  # rows per read
LOCAL_BUFFER = 2**20  # bytes per column


class ParquetRows(Rows):
    """Rows of Parquet files, local or at any fsspec URL. A piece is a row group; only the columns in use are read."""

    reads_from_start = True
    piece = "row group"

    def __init__(self, urls: Sequence[str], columns: Mapping[str, str]):
        facts = file_facts(urls)
        self.stamp = digest([urls, facts])
        names, counts, places = short_names(urls), [], []
        self.groups: list[tuple[str, int]] = []
        for url, name, of_file in zip(urls, names, cached(urls, facts, "parquet", self._groups), strict=True):
            before = 0
            for group, count in enumerate(of_file.tolist()):
                counts.append(count)
                places.append((name, before))
                self.groups.append((url, group))
                before += count
        super().__init__(columns, counts, places, files_of(names, urls, facts), any(map(is_remote, urls)))
        self.footer = lru_cache(256)(footer)

    @staticmethod
    def _groups(url: str) -> np.ndarray:
        metadata = footer(url)
        return np.array([metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)], np.int64)

    def url(self, piece: int) -> str:
        return self.groups[piece][0]

    def open(self, piece: int, start: int) -> Iterator[dict]:
        import pyarrow.parquet as pq

        url, group = self.groups[piece]
        buffer = READ_AHEAD if is_remote(url) else LOCAL_BUFFER
        with open_file(url) as handle, pq.ParquetFile(handle, metadata=self.footer(url), buffer_size=buffer) as file:
            for batch in file.iter_batches(
                AT_ONCE, row_groups=[group], columns=list(self.columns.values()), use_threads=False
            ):
                rows = batch.slice(start).to_pylist()[::-1]
                start = max(start - len(batch), 0)
                del batch
                while rows:  # frees each row after it is yielded
                    yield self._renamed(rows.pop())


def footer(url: str):
    """Returns the metadata of a Parquet file."""
    import pyarrow.parquet as pq

    with open_file(url) as handle:
        return pq.read_metadata(handle)
