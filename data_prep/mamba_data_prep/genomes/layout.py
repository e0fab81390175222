"""Where a FASTA file's bases lie on the disk: offset, bases a line and bytes a line of each record, as in a .fai index.

Found block by block with whole-array operations: each line's width is compared with the width of its record's first
line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """The lines of every record, in file order; int64 arrays of one entry a record.

    Attributes:
        offset: byte in the file of the record's first base.
        line_bases: bases on each line but the last.
        line_bytes: bytes from one line's start to the next's; equal to `line_bases` where no line ends lie between.
    """

    offset: np.ndarray
    line_bases: np.ndarray
    line_bytes: np.ndarray


class LayoutFinder:
    """Reads the text block by block and notes where lines end.

    A file is regular if in every record all lines but the last have one width and hold nothing but bases; only then can
    bases be found by arithmetic. What the lines hold is checked at the end against the number of bases counted
    elsewhere: a line cannot hold more bases than its width leaves room for, so equal sums mean that every line is full
    of bases.
    """

    def __init__(self) -> None:
        self.regular = True
        self._position = 0  # bytes seen before this block
        self._line_start = 0  # of the line that is not complete yet, in the file
        self._line_begins_with = 0
        self._last_byte = ord("\n")
        self._after_short = False  # the last complete line was shorter than its record's first
        self._open = np.zeros(
            3, dtype=np.int64
        )  # width and CRLF of the last record's first line, room for bases so far
        self._offsets: list[np.ndarray] = []
        self._closed: list[np.ndarray] = []  # (3, records) for each block, as in `_open`

    def feed(self, block: bytes) -> None:
        """Notes the lines that end in this block."""
        if not self.regular or not block:
            return
        data = np.frombuffer(block, dtype=np.uint8)
        if self._line_start == self._position:
            self._line_begins_with = block[0]
        ends = np.flatnonzero(data == ord("\n"))
        if len(ends):
            self._add_lines(data, ends)
        self._last_byte = block[-1]
        self._position += len(block)

    def finish(self, lengths: np.ndarray) -> Layout | None:
        """Gives the layout, given the number of bases counted in each record; None where the file is not regular."""
        if self._last_byte != ord("\n"):
            self.feed(b"\n")
        if not self.regular or not self._offsets:
            return None
        offset = np.concatenate(self._offsets)
        records = np.concatenate([*self._closed, self._open[:, None]], axis=1)[:, 1:]  # without what precedes the first
        width, crlf, room = records
        if len(offset) != len(lengths) or not np.array_equal(room, lengths):
            return None
        return Layout(offset, width - 1 - crlf, width)

    def _add_lines(self, data: np.ndarray, ends: np.ndarray) -> None:
        starts = np.concatenate(([self._line_start - self._position], ends[:-1] + 1))
        header = data[starts.clip(0)] == ord(">")
        header[0] = self._line_begins_with == ord(">")
        returns = data[(ends - 1).clip(0)] == ord("\r")
        if ends[0] == 0:
            returns[0] = self._last_byte == ord("\r")
        crlf = returns.astype(np.int64)
        width = ends - starts + 1
        room = np.where(header, 0, width - 1 - crlf)

        record = np.cumsum(header)  # 0 is the record that was open when the block began
        first_width, first_crlf = self._first_lines(header, width, crlf)
        short = ~header & ((width != first_width[record]) | (crlf != first_crlf[record]))
        after_short = np.concatenate(([self._after_short], short[:-1])) & ~header
        too_long = room > np.maximum(first_width - 1 - first_crlf, 0)[record]
        self.regular = not (too_long.any() or (after_short & (room > 0)).any())

        rooms = np.bincount(record, weights=room).astype(np.int64)
        rooms[0] += self._open[2]
        records = np.stack([first_width, first_crlf, rooms])
        self._closed.append(records[:, :-1])
        self._open = records[:, -1]
        self._offsets.append(ends[header] + 1 + self._position)
        self._after_short = bool(short[-1])
        self._line_start = self._position + int(ends[-1]) + 1
        self._line_begins_with = int(data[ends[-1] + 1]) if ends[-1] + 1 < len(data) else 0

    def _first_lines(self, header: np.ndarray, width: np.ndarray, crlf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Width and CRLF of the first sequence line of each record in this block, 0 where it has not come yet."""
        at = np.concatenate(([0], np.flatnonzero(header) + 1))
        known = at < len(header)
        known[known] = ~header[at[known]]
        at = at.clip(max=len(header) - 1)
        first_width, first_crlf = np.where(known, width[at], 0), np.where(known, crlf[at], 0)
        if self._open[0]:
            first_width[0], first_crlf[0] = self._open[0], self._open[1]
        return first_width, first_crlf
