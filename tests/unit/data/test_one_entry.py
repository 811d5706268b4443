"""What DVC is given of an ingested source: a few files, however many samples there are."""

from tests.unit.data.workspace import ingested, small_playground
from uni_moe.records import MODALITIES


def test_media_travel_in_shards_and_never_as_a_file_each(tmp_path):
    few = small_playground()
    many = few | {"train": {modality: 3 * count for modality, count in few["train"].items()}}
    names = []
    for place, source in (("few", few), ("many", many)):
        layout = ingested(tmp_path / place, source)
        files = [path for name in MODALITIES for path in layout.samples(name).rglob("*.*")]
        names.append(sorted(path.relative_to(layout.root).as_posix() for path in files))
    assert names[0] == names[1]  # three times the samples, not one file more
    assert {name.rpartition(".")[2] for name in names[0]} <= {"json", "parquet", "tar", "jsonl"}
