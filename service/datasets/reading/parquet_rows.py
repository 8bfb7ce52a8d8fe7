"""A row group of a Parquet file, read a few rows at a time: what it becomes in memory is no number in the file.

A value that is stored once, in a dictionary, may stand in every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from service.datasets.reading.report import EntryFault
from service.errors import InvalidDataset

MAX_GROUP_BYTES = 1 << 30
"""The maximum size of a row group, whose pages may be in memory while it is read."""
_TEXT_ROWS, _IMAGE_ROWS = 64, 4
_FREE_ROWS, _ROW_BYTES = 10_000, 40
"""Rows of images and masks take bytes, so a file has few rows for its size."""


def check_metadata(metadata: Any, file_bytes: int, path: str) -> None:
    """Raises InvalidDataset for a file with more rows than its size explains, or with a row group that is too large."""
    most = _FREE_ROWS + file_bytes // _ROW_BYTES
    if metadata.num_rows > most:
        raise InvalidDataset(
            f"{path} states {metadata.num_rows} rows in {file_bytes} bytes; the limit is {most}. Write it anew"
        )
    for number in range(metadata.num_row_groups):
        # of its columns nothing is asked: Arrow ends the process where a damaged file makes that impossible
        if (size := metadata.row_group(number).total_byte_size) > MAX_GROUP_BYTES:
            raise InvalidDataset(
                f"{path} has a row group of {size} bytes; the limit is {MAX_GROUP_BYTES}. Write smaller row groups"
            )


class RowGroup:
    """Row group ``number`` of a file that pyarrow has opened."""

    def __init__(self, file: Any, number: int, columns: Sequence[str]) -> None:
        """``columns`` are those of image files, structs of bytes and path."""
        self._file, self._number, self._columns = file, number, columns
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._start = self._end = 0

    def texts(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The values of these columns, row by row."""
        return chain.from_iterable(batch.to_pylist() for batch in self._read(columns, _TEXT_ROWS))

    def cell(self, column: str, row: int, *, required: bool = True) -> bytes:
        """The bytes of the image file in a cell; rows are best read in their order.

        Raises EntryFault, for an empty cell only if it is ``required``.
        """
        try:
            if row < self._start or self._batch is None:
                self._batches = self._read([f"{name}.bytes" for name in self._columns], _IMAGE_ROWS)
                self._start = self._end = 0
            while row >= self._end:
                self._batch = None  # freed before the next one is read
                self._batch = next(self._batches)
                self._start, self._end = self._end, self._end + len(self._batch)
            cell = self._batch.column(column)[row - self._start].as_py()
        except StopIteration:
            raise EntryFault("damaged", "its column ends before it; fetch the file anew") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise EntryFault("unreadable", f"its row group cannot be read ({str(error)[:200]})") from None
        data = (cell or {}).get("bytes")
        if not data and required:
            raise EntryFault("missing_partner", f"its cell in the column {column} is empty")
        return bytes(data or b"")

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Any]:
        batches: Iterator[Any] = self._file.iter_batches(
            batch_size=rows, row_groups=[self._number], columns=list(columns), use_threads=False
        )
        return batches
