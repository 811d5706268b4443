"""Where the order of a phase is cut into steps: by the number of draws, or by their positions.

Both are pure functions of the order. The second needs the length of every draw up to a step, which
follows from tokens and measured facts; no medium is decoded for it. What was found is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from uni_moe.data.order import Draw, Order

Length = Callable[[str, str], int]  # modality, key -> positions; a hole's are those it had


class Steps:
    """The steps of a phase, counted from 0."""

    def __init__(
        self,
        order: Order,
        length: Length,
        *,
        batch_size: int | None = None,
        batch_positions: int | None = None,
    ) -> None:
        """Cut by one of the two: so many draws, or draws of at most so many positions together."""
        assert (batch_size is None) != (batch_positions is None)
        self._order, self._length = order, length
        self._size, self._budget = batch_size, batch_positions
        self._starts = [0]

    def draws(self, step: int) -> list[Draw]:
        """Return what a step draws."""
        return self._order.draws(*self.bounds(step))

    def taken(self, count: int, skipped: Collection[int] = ()) -> Iterator[tuple[int, list[Draw]]]:
        """Give the first so many steps, each counted from 1, with its draws; `skipped` ones not."""
        for step in range(count):
            if step + 1 not in skipped:
                yield step + 1, self.draws(step)

    def bounds(self, step: int) -> tuple[int, int]:
        """Return a step's first position in the order and the one behind its last."""
        if self._size is not None:
            return step * self._size, (step + 1) * self._size
        while len(self._starts) <= step + 1:
            self._starts.append(self._end(self._starts[-1]))
        return self._starts[step], self._starts[step + 1]

    def _end(self, first: int) -> int:
        """Return where a step ends that begins here: before the draw that is too much for it.

        A draw that is too much alone has a step of its own.
        """
        assert self._budget is not None
        filled, position = 0, first
        while True:
            filled += self._length(*self._order.at(position))
            if filled > self._budget and position > first:
                return position
            position += 1
