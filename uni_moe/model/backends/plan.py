"""Where every visit's row lies while experts run one after another.

Shapes
    T  tokens    K  experts each token visits    R  visits    P  rows, an expert's rounded up
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from uni_moe.model.backends.base import Visits


@dataclass(frozen=True)
class Plan:
    """`place_TK` is every visit's row, `token_P` every row's token, `rows` each expert's.

    A row that only fills up repeats token 0 with a share of 0.
    """

    place_TK: Tensor
    token_P: Tensor
    rows: tuple[slice, ...]

    @staticmethod
    def of(visits: Visits, pad_rows: int) -> Plan:
        """Round every expert's rows up to a multiple of `pad_rows`."""
        padded = [-(-count // pad_rows) * pad_rows for count in visits.load]
        starts = list(accumulate(padded, initial=0))
        row_R = torch.cat(
            [
                torch.arange(start, start + count)
                for start, count in zip(starts, visits.load, strict=False)
            ]
        )
        place_R, token_P = torch.empty_like(row_R), row_R.new_zeros(starts[-1])
        place_R[visits.visit_R] = row_R
        token_P[row_R] = visits.token_R
        rows = tuple(slice(s, s + size) for s, size in zip(starts, padded, strict=False))
        return Plan(place_R.view(-1, visits.top_k), token_P, rows)

    @property
    def most(self) -> int:
        """Rows of the busiest expert."""
        return max(rows.stop - rows.start for rows in self.rows)

    def busy(self) -> Iterator[tuple[int, slice]]:
        """Yield every expert that somebody visits, and its rows."""
        return ((e, rows) for e, rows in enumerate(self.rows) if rows.stop > rows.start)

    def shares(self, share_TK: Tensor) -> Tensor:
        """Return every row's share, (P,), in float32."""
        share_P = share_TK.new_zeros(len(self.token_P), dtype=torch.float32)
        share_P[self.place_TK.flatten()] = share_TK.flatten().float()
        return share_P
