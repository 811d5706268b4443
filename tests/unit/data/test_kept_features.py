"""What a feature cache holds, told and cleared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from feature_writer import ABOUT, feature, name_of

from uni_moe.cli import main
from uni_moe.data.features import FeatureCache
from uni_moe.data.kept_features import clear_features, kept_features
from uni_moe.errors import ConfigError, StageError
from uni_moe.machine import FeatureCacheSettings, Machine, load_machine

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path):
    """Two encoders of pictures and one of sounds, beside a file and a folder of somebody else."""
    root = tmp_path / "state/features"
    cache = FeatureCache(root, FeatureCacheSettings(spare_share=0.0), pytest.fail)
    for kind, weights, numbers in (("image", "aa", 3), ("image", "bb", 1), ("audio", "cc", 2)):
        store = cache.store(kind, ABOUT | {"kind": kind, "weights": weights})
        for number in range(numbers):
            store.put(name_of(number), feature(number))
            store.publish()
    (root / "notes.txt").write_text("mine")
    (root / "image-notes").mkdir()
    return root


def test_every_encoder_is_told_with_its_media_and_bytes(root):
    found = {one.about["weights"]: one for one in kept_features(root)}
    assert {w: (one.kind, one.media, one.blocks) for w, one in found.items()} == {
        "aa": ("image", 3, 3),
        "bb": ("image", 1, 1),
        "cc": ("audio", 2, 2),
    }
    for one in found.values():
        files = [path.stat().st_size for path in (root / one.name).iterdir()]
        assert one.size_bytes == sum(files) > 12_000 * one.media


def test_a_medium_that_two_processes_kept_counts_once(root):
    cache = FeatureCache(root, FeatureCacheSettings(spare_share=0.0), pytest.fail)
    store = cache.store("image", ABOUT | {"weights": "aa"})
    store.put(name_of(1), feature(1))
    store.publish()
    (found,) = [one for one in kept_features(root) if one.about["weights"] == "aa"]
    assert (found.media, found.blocks) == (3, 4)


def test_features_that_the_disk_does_not_let_go_are_told(root, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(1, "Operation not permitted", path)

    with monkeypatch.context() as held:
        held.setattr("os.unlink", refuse)
        with pytest.raises(StageError, match="Operation not permitted") as told:
            clear_features(root, "audio")
    assert "audio-" in told.value.what
    assert "image-" not in told.value.what
    assert [one.kind for one in clear_features(root, "audio")] == ["audio"]
    assert {one.kind for one in kept_features(root)} == {"image"}


def test_clearing_takes_what_is_named_and_nothing_else(root):
    assert {one.about["weights"] for one in clear_features(root, "image")} == {"aa", "bb"}
    (left,) = kept_features(root)
    clear_features(root, left.name)
    assert sorted(path.name for path in root.iterdir()) == ["image-notes", "notes.txt"]


def test_clearing_all_leaves_what_is_not_ours(root):
    assert len(clear_features(root, None)) == 3
    assert sorted(path.name for path in root.iterdir()) == ["image-notes", "notes.txt"]


def test_clearing_what_is_not_there_names_what_is(root, tmp_path):
    with pytest.raises(ConfigError, match="audio, audio-"):
        clear_features(root, "speech")
    with pytest.raises(ConfigError, match="nothing to clear"):
        clear_features(tmp_path / "none", "image")
    assert clear_features(tmp_path / "none", None) == []


def test_a_spoiled_block_is_passed_over(root):
    (folder,) = [one.name for one in kept_features(root) if one.about["weights"] == "bb"]
    (block,) = (root / folder).glob("*.safetensors")
    block.write_bytes(b"")
    (root / folder / "about.json").write_text("{")
    (found,) = [one for one in kept_features(root) if one.name == folder]
    assert (found.media, found.blocks, found.about) == (0, 1, {})


def test_the_command_tells_and_clears(root, tmp_path, capsys):
    words = ["--workspace", str(tmp_path), "features"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert str(root) in out
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(one["media"] for one in told["encoders"]) == [1, 2, 3]
    assert (told["folder"], told["cleared"]) == (str(root), False)
    assert main([*words, "--clear", "video"]) == 2
    assert main([*words, "--clear", "audio", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleared"]
    assert main([*words, "--clear"]) == 0
    assert capsys.readouterr().out.startswith("cleared:\n")
    assert main(words) == 0
    assert capsys.readouterr().out == f"no features are in {root}\n"


def test_the_command_looks_where_the_machine_keeps_them(root, tmp_path, capsys):
    (tmp_path / "machine.yaml").write_text("features: {folder: elsewhere, video: false}")
    root.rename(tmp_path / "elsewhere")
    assert main(["--workspace", str(tmp_path), "features", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["encoders"]) == 3


def test_what_the_documentation_shows_are_the_values_of_a_machine_that_says_nothing(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = next(text for text in readme.split("```yaml\n")[1:] if text.startswith("features:"))
    (tmp_path / "machine.yaml").write_text(shown.partition("```")[0])
    assert load_machine(tmp_path) == Machine()


def test_impossible_sizes_are_told_at_once(tmp_path):
    sizes = "{memory_bytes: -1, limit_bytes: -1, spare_share: 1.5, pictures: false}"
    (tmp_path / "machine.yaml").write_text(f"features: {sizes}")
    with pytest.raises(ConfigError, match=r"features\.pictures: unknown key"):
        load_machine(tmp_path)
    (tmp_path / "machine.yaml").write_text(f"features: {sizes.replace(', pictures: false', '')}")
    with pytest.raises(ConfigError, match="3 problem") as told:
        load_machine(tmp_path)
    for name in ("memory_bytes", "limit_bytes", "spare_share"):
        assert f"features.{name}: must be" in str(told.value)


def test_telling_needs_no_torch():
    code = (
        "import sys; from uni_moe.cli import main; main(['features']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 0
