"""A workspace of which pictures were refused, for several reasons."""

import json

from uni_moe.artifacts import parent_ids, write_artifact
from uni_moe.data.manifest import read_manifest
from uni_moe.data.validated import write_accepted, write_quarantine


def refuse(made, hostile):
    """Refuse pictures of an ingested workspace; one lost its medium, one says what is hostile."""
    rows = read_manifest(made.samples("image"))
    rows[1]["media"] = json.dumps([json.loads(rows[1]["media"])[0] | {"members": ["gone.png"]}])
    rows[2]["caption"] = hostile
    rows[2]["conversation"] = "not a conversation"
    refused = [rows[n % len(rows)] | {"key": f"playground/r{n:02}"} for n in range(13)]
    codes = [["short_sound", "low_rate"], ["low_rate"], [hostile.replace(",", "")]]
    with write_artifact(
        made.validated("image"),
        stage="validate",
        kind="validated",
        params={},
        parents=parent_ids(made, made.samples("image")),
    ) as draft:
        write_accepted(draft.folder, rows)
        write_quarantine(draft.folder, refused, [codes[n % 3] for n in range(13)])
        draft.results.update(accepted=len(rows), quarantined=13, listed=len(rows) + 13)
