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
    """`place_TK` is every visit's row, `visit_P` every row's visit, `rows` each expert's.

    A row that only fills up repeats visit 0, and is False in `real_P`.
    """

    place_TK: Tensor
    visit_P: Tensor
    real_P: Tensor
    rows: tuple[slice, ...]

    @staticmethod
    def of(visits: Visits, pad_rows: int) -> Plan:
        """Round every expert's rows up to a multiple of `pad_rows`."""
        load, place = visits.load(), visits.visit_R.device
        padded = [-(-count // pad_rows) * pad_rows for count in load]
        starts = list(accumulate(padded, initial=0))
        rows = tuple(slice(s, s + size) for s, size in zip(starts, padded, strict=False))
        real_P = torch.zeros(starts[-1], dtype=torch.bool)
        for start, count in zip(starts, load, strict=False):
            real_P[start : start + count] = True
        row_R, real_P = real_P.nonzero()[:, 0].to(place), real_P.to(place)
        # Gathers alone: an accelerator that writes by index in a fixed order is slow at it.
        visit_P = visits.visit_R[(real_P.cumsum(0) - 1).clamp(min=0)].where(real_P, 0)
        place_R = row_R[visits.visit_R.argsort()]
        return Plan(place_R.view(-1, visits.top_k), visit_P, real_P, rows)

    @property
    def token_P(self) -> Tensor:
        """The token of every row."""
        return self.visit_P // self.place_TK.shape[1]

    @property
    def most(self) -> int:
        """Rows of the busiest expert."""
        return max(rows.stop - rows.start for rows in self.rows)

    def busy(self) -> Iterator[tuple[int, slice]]:
        """Yield every expert that somebody visits, and its rows."""
        return ((e, rows) for e, rows in enumerate(self.rows) if rows.stop > rows.start)

    def shares(self, share_TK: Tensor) -> Tensor:
        """Return every row's share, (P,), in float32."""
        return share_TK.flatten()[self.visit_P].float() * self.real_P
