"""The conversations that a phase draws from."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from uni_moe.config import Phase
from uni_moe.data.captions import conversations
from uni_moe.data.corpus import Corpus
from uni_moe.errors import StageError
from uni_moe.extent import Extent
from uni_moe.records import Sample
from uni_moe.train.networks import ENCODERS, encoder_of

Conversations = Mapping[str, Mapping[str, Sample]]  # modality -> key -> conversation
# modality -> key of one that went -> how long it was, None where nobody measured it
Holes = Mapping[str, Mapping[str, Extent | None]]

# The encoders whose foundation and connector dvc.yaml gives to an expert's stage: spoken questions
# about pictures need eyes. A connector is aligned with its own encoder alone.
_EXPERT_SEES = {
    "image": ("image",),
    "video": ("image",),
    "audio": ("audio",),
    "speech": ("image", "speech"),
}


def sight_of(stage: str) -> tuple[str, ...]:
    """Return the encoders that a phase's stage has, by its name: `experts@speech`."""
    name, _, item = stage.partition("@")
    return {"align": (item,), "experts": _EXPERT_SEES.get(item, ())}.get(name, ENCODERS)


def read_conversations(
    corpora: Mapping[str, Corpus], split: str, phase: Phase, prompts: Mapping[str, str]
) -> Conversations:
    """Return the conversations of a split that a phase may draw from."""
    return {
        modality: {
            sample.key: sample
            for sample in conversations(corpora[modality].samples(split), phase.tasks, prompts)
        }
        for modality in phase.blend
    }


def within_sight(found: Conversations, encoders: Collection[str]) -> Conversations:
    """Return the conversations whose every medium is read by one of these encoders."""
    return {
        modality: {
            key: sample
            for key, sample in rows.items()
            if all(encoder_of(ref.kind) in encoders for ref in sample.media)
        }
        for modality, rows in found.items()
    }


def read_holes(
    corpora: Mapping[str, Corpus], split: str, phase: Phase, encoders: Collection[str]
) -> Holes:
    """Return the conversations of a split that a phase would draw if their samples had not gone."""
    return {
        modality: {
            hole.key: hole.extent
            for tombstone in corpora[modality].tombstones(split)
            for hole in tombstone.holes(phase.tasks)
            if all(encoder_of(kind) in encoders for kind in hole.kinds)
        }
        for modality in phase.blend
    }


def check_not_empty(train: Conversations, phase: Phase) -> None:
    """Refuse a phase that would draw from nothing.

    Raises:
        StageError: a modality of the blend has no conversation.
    """
    empty = sorted(modality for modality, rows in train.items() if not rows)
    if empty:
        raise StageError(
            f"There is nothing to train on for {', '.join(empty)}.",
            cause=f"the corpus has no training conversation with {' or '.join(phase.tasks)} there "
            "whose media this stage can read.",
            remedy="take the modality out of this phase's `blend`, or add a source for it.",
        )
