"""The learner of the three phases: the network, its data, its validation loss by modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uni_moe.config import Phase
from uni_moe.data.order import Draw
from uni_moe.data.packing import Batch, Plan, plan, used
from uni_moe.examples import Example, ExampleMaker, collate, pack
from uni_moe.launch import here
from uni_moe.lengths import UNPACKED, check_lengths
from uni_moe.model import adapters
from uni_moe.model.losses import Whole, first, weights_of
from uni_moe.model.segments import groups_of
from uni_moe.platform import device
from uni_moe.records import Sample
from uni_moe.train.batches import MicroBatch, Seen, StepLoss
from uni_moe.train.conversations import Conversations, Holes
from uni_moe.train.drawing import steps_of
from uni_moe.train.precision import Precision, computing
from uni_moe.train.world import summed


class PhaseLearner:
    """Draws examples by the phase's blend and asks the network for their loss."""

    def __init__(  # noqa: PLR0913 - a phase meets its network and its data here
        self,
        model: nn.Module,
        maker: ExampleMaker,
        phase: Phase,
        *,
        name: str,
        train: Conversations,
        validation: Conversations,
        seed: int,
        holes: Holes | None = None,
        precision: Precision = "float32",
    ) -> None:
        """Plan the order of `train`; `holes` are conversations that went from it.

        Raises:
            DataError: conversations are too long, all of them at once; or how long some were that
                went is needed, and nobody knows it.
        """
        self.module = PhaseModule(model, precision)
        self.maker, self.phase, self.packing = maker, phase, phase.packing or UNPACKED
        self.train_set, self.validation_set = train, validation
        every = (
            one for part in (train, validation) for rows in part.values() for one in rows.values()
        )
        check_lengths(maker.lengths, every)
        self.steps = steps_of(
            phase, name=name, seed=seed, train=train, holes=holes or {}, lengths=maker.lengths
        )

    def micro_batches(self, step: int, rank: int, ranks: int) -> list[MicroBatch]:
        """Return a rank's share of a step: which draws it holds follows from blend and step.

        Ranks meet in every step, so what the next one needs of this rank's features is there then.
        """
        drawn = self.steps.draws(step)
        samples = self._samples(drawn)
        slots = [one.slot for one in drawn]
        planned = self._plan(samples, self.packing.rows, ranks)
        found = [self._micro_batch(samples, slots, batch) for batch in planned[rank]]
        if ranks > 1:
            self.maker.share(self._samples(self.steps.draws(step + 1)))
        return found

    def validate(self) -> dict[str, float]:
        """Return nats per token on the validation split, by modality.

        Ranks share the work; what each found is added up by draw, so all have the same bits.
        """
        self.module.eval()
        found = {}
        for modality, rows in self.validation_set.items():
            total, tokens = summed(self._validated(list(rows.values()))).sum(0).tolist()
            if tokens:
                found[modality] = total / tokens
        return found

    @torch.no_grad()
    def _validated(self, samples: Sequence[Sample]) -> Tensor:
        """Return the loss and the tokens of every sample, (samples, 2); 0 where others compute."""
        world, slots = here(), range(len(samples))
        planned = self._plan(samples, self._validation_rows(samples), world.size)[world.rank]
        batches = (self._micro_batch(samples, slots, batch) for batch in planned)
        seen = [([s.slot for s in one.seen], self.module(one.inputs).by_draw) for one in batches]
        mine = [slot for own, _ in seen for slot in own]
        table = torch.zeros(len(samples), 2, dtype=torch.float64)
        table[mine] = torch.cat([by_draw for _, by_draw in seen]).double().cpu()
        return table

    def _samples(self, drawn: Sequence[Draw]) -> list[Sample]:
        return [self.train_set[one.modality][one.key] for one in drawn]

    def _plan(self, samples: Sequence[Sample], rows: int | None, ranks: int = 1) -> Plan:
        lengths = [self.maker.lengths.of(sample) for sample in samples]
        budget = self.packing.row_positions
        return plan(lengths, row_positions=budget, rows=rows, ranks=ranks)

    def _validation_rows(self, samples: Sequence[Sample]) -> int:
        """Return how many rows of a validation are computed at once: about as a step computes."""
        if self.packing.rows is not None or self.packing.row_positions is not None:
            return self.packing.rows or 1
        if self.phase.batch_positions is None:
            return self.phase.batch_size or 1
        longest = max((self.maker.lengths.of(sample) for sample in samples), default=1)
        return max(1, self.phase.batch_positions // longest)

    def _micro_batch(
        self, samples: Sequence[Sample], slots: Sequence[int], batch: Batch
    ) -> MicroBatch:
        """Make the tensors of rows that are computed at once."""
        encoded_s = self.maker.encode_s
        rows = [[self.maker.example(samples[at]) for at in row.draws] for row in batch]
        drawn = [at for row in batch for at in row.draws]
        examples = [one for row in rows for one in row]
        if batch and self.packing.row_positions is None:
            inputs = collate(self.maker.processor, examples)
        else:
            inputs = pack(self.maker.processor, rows)
        seen = tuple(
            _seen(slots[at], samples[at], example)
            for at, example in zip(drawn, examples, strict=True)
        )
        count = float(sum(one.tokens for one in seen))
        positions, computed = used([batch])
        attended = computed
        if self.packing.row_positions is not None:
            lengths = [len(one.encoded.input_ids) for one in examples]
            attended = sum(count * longest for count, longest in groups_of(_spans(batch, lengths)))
        return MicroBatch(
            placed(inputs, device()),
            count,
            len(seen),
            seen,
            positions,
            computed,
            attended,
            self.maker.encode_s - encoded_s,
        )


class PhaseModule(nn.Module):
    """Calls the network and splits its loss by draw. Nothing leaves the device."""

    def __init__(self, model: nn.Module, precision: Precision = "float32") -> None:
        super().__init__()
        self.model, self.precision = model, precision
        if precision != "float32":
            adapters.leave_casts_to_autocast(model)
        self._step: Whole | None = None
        self._looks_ahead = False
        self._layers: list[int] = []

    def look_ahead(self, batches: Sequence[MicroBatch]) -> None:
        """Count what losses of routing are means over, where a step is computed in several parts.

        The balance needs to know how often each expert comes first in the whole step, so a step
        runs forward once more for it, without dropout.
        """
        config: Any = self.model.config
        weights = weights_of(config)
        self._step = None
        if not weights or here().size * len(batches) == 1:
            return
        samples = int(summed(torch.tensor(sum(one.draws for one in batches))))
        self._step = Whole(samples, self._first(batches) if "balance" in weights else {})

    @torch.no_grad()
    def _first(self, batches: Sequence[MicroBatch]) -> dict[int, Tensor]:
        """Return layer -> how often each expert comes first in the step of all ranks.

        The module is called as a whole: what gathers partitioned weights begins anew at its call.
        """
        self.eval()
        self._looks_ahead = True
        try:
            found = [self(one.inputs) for one in batches]
        finally:
            self._looks_ahead = False
        counts_LE = summed(torch.stack(found).sum(0))
        return dict(zip(self._layers, counts_LE.unbind(), strict=True))

    def _firsts(self, batch: Mapping[str, Any]) -> Tensor:
        """Return how often each expert comes first in a batch, (L, E); a tensor, for hooks."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with computing(self.precision, device()):
            out = self.model(**inputs, use_cache=False, logits_to_keep=1, output_routing=True)
        self._layers = sorted(out.routing)
        return torch.stack([first(out.routing[layer]) for layer in self._layers])

    def forward(self, batch: Mapping[str, Any]) -> StepLoss | Tensor:
        """Return the batch's summed loss and (sum, tokens) by draw; looking ahead, see _firsts."""
        if self._looks_ahead:
            return self._firsts(batch)
        more = {"whole": self._step} if self.training and self._step is not None else {}
        with computing(self.precision, device()):
            out = self.model(**batch, **more, use_cache=False, output_routing_sums=self.training)
        by_draw = torch.stack([out.loss_sum_B.detach(), out.loss_tokens_B], dim=1)
        return StepLoss(
            out.loss_sum_B.sum(),
            beside=out.beside,
            by_draw=by_draw,
            routing=out.routing_sums or {},
            auxiliary={name: loss.detach() for name, loss in (out.aux_losses or {}).items()},
        )


def _spans(batch: Batch, lengths: Sequence[int]) -> list[int]:
    """Return what attends in rows: their conversations, and the filling behind each row's."""
    longest = max((row.positions for row in batch), default=0)
    gaps = (longest - row.positions for row in batch)
    return [*lengths, *(gap for gap in gaps if gap)]


def _seen(slot: int, sample: Sample, example: Example) -> Seen:
    return Seen(
        slot=slot,
        key=sample.key,
        sample=sample.id,
        modality=sample.modality,
        source=sample.source,
        tokens=example.fitted.tokens,
        truncated=example.fitted.truncated,
    )


def placed(batch: Mapping[str, Any], place: torch.device) -> dict[str, Any]:
    """Return a batch's tensors, and those of its features, on a device."""
    return {
        name: {k: t.to(place, non_blocking=True) for k, t in value.items()}
        if isinstance(value, Mapping)
        else value.to(place, non_blocking=True)
        for name, value in batch.items()
    }
