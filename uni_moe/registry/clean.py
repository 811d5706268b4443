"""Whether tuning may begin with a registered model: not where samples taken out are in it."""

from __future__ import annotations

from uni_moe.artifacts import Layout
from uni_moe.data.tombstones import FILE, read_tombstones
from uni_moe.errors import LineageError
from uni_moe.registry.asked import known_keys
from uni_moe.registry.database import reading
from uni_moe.registry.impact import reached_by, untold_versions
from uni_moe.registry.indexing import catch_up
from uni_moe.registry.read import Version


def check_clean(layout: Layout, raw: str, version: Version) -> bool:
    """Refuse a model that samples taken out are in; say whether it is known that they are not.

    A sample of which no manifest and no ledger tells is in nothing.

    Args:
        layout: the workspace.
        raw: its folder of raw data, where what was taken out is listed.
        version: the model.

    Raises:
        LineageError: they are in data that it was made from, and no ledger spares it. Of a model
            with no manifest nothing is known, which is no error.
        DataError: the list cannot be read.
    """
    keys = [one.key for one in read_tombstones(layout.root / raw / FILE)]
    if not keys:
        return True
    catch_up(layout)
    with reading(layout, data=True) as session:
        hits, _ = reached_by(session, known_keys(session, keys))
        hit = {one.artifact.id for one in hits}
        is_untold = version.number in untold_versions(session, hit)
    if version.model in hit:
        raise LineageError(
            f"Version {version.number} must not be begun with: samples that were taken out are in "
            "it.",
            cause=f"of {len(keys)} sample(s) that were taken out, some are in what it was made "
            "from, and no ledger proves that it never learned from them.",
            remedy="train from scratch (`uni-moe retrain`), or promote a version without them; "
            "`uni-moe impact SAMPLE` tells which have one.",
        )
    return not is_untold
