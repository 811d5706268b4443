"""What a person gets told, by the real command, when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from uni_moe.artifacts import Layout, read_json
from uni_moe.workspace import make_workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return make_workspace(tmp_path / "space", "smoke")


def run(workspace, *words):
    done = subprocess.run(
        [sys.executable, "-m", "uni_moe", "--workspace", str(workspace), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stderr


def edit(workspace, old, new):
    file = workspace / "params.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def with_conversations(workspace, records, *, text=None):
    """Make a LLaVA source the only one."""
    folder = workspace / "data" / "mine"
    folder.mkdir(parents=True)
    (folder / "media").mkdir()
    (folder / "train.json").write_text(json.dumps(records) if text is None else text)
    file = workspace / "params.yaml"
    before, _, rest = file.read_text().partition("sources:")
    _, _, after = rest.partition("\ncontract:")
    source = (
        "sources:\n  - {kind: conversations, name: mine, path: data/mine/train.json, "
        "media_root: data/mine/media, license: CC0, voice_is: speech}\n"
    )
    file.write_text(f"{before}{source}\ncontract:{after}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 7", "sede: 7", ["sede: unknown key; did you mean 'seed'?", "seed: missing"]),
        ("seed: 7", "seed: seven", ["seed: expected a whole number, found 'seven'"]),
        ("learning_rate: 1.0e-3", "learning_rate: 1e-3", ["write 1.0e-4"]),
        (
            "sources:\n  - kind: playground",
            "sources:\n  - {kind: sharded, name: playground, path: data/x, tasks: []}\n"
            "  - kind: playground",
            ["two sources have the name 'playground'"],
        ),
        ("raw: data", "raw: data\n\nfoo: [", ["is not YAML"]),
    ],
)
@pytest.mark.parametrize("word", ["ingest", "run"])
def test_a_slip_in_params_stops_every_command_at_once(workspace, word, old, new, said):
    edit(workspace, old, new)
    code, told = run(workspace, word)
    assert code == 2
    for sentence in (*said, "cause:", "remedy:"):
        assert sentence in told
    assert "Traceback" not in told
    assert not (workspace / "artifacts").exists()


def test_a_missing_foundation_folder_is_named(workspace):
    text = (workspace / "params.yaml").read_text()
    start, end = text.index("  image:\n    pretrained"), text.index("  audio:\n    pretrained")
    chosen = "  image: {pretrained: /nowhere/clip, tiny: null}\n"
    (workspace / "params.yaml").write_text(text[:start] + chosen + text[end:])
    code, told = run(workspace, "foundation@image")
    assert code == 2
    assert "/nowhere/clip" in told
    assert not Layout(workspace).foundation("image").exists()


def test_a_missing_source_stops_before_anything_is_written(workspace):
    edit(
        workspace,
        "sources:\n",
        "sources:\n  - {kind: sharded, name: a, path: data/a, tasks: [t]}\n"
        "  - {kind: sharded, name: b, path: data/b, tasks: [t]}\n",
    )
    code, told = run(workspace, "ingest")
    assert code == 3
    assert "data/a" in told
    assert "data/b" in told
    assert not (workspace / "artifacts/samples/image").exists()


def test_broken_samples_are_counted_and_a_broken_set_stops_the_road(workspace):
    user = {"from": "human", "value": "<image>\nWhat is it?"}
    answer = {"from": "gpt", "value": "a cat"}
    plain = {**user, "value": "What is it?"}
    talk = [user, answer]
    records = [
        {"id": "outside", "image": "../../../params.yaml", "conversations": talk},
        {"id": "missing", "image": "missing.png", "conversations": talk},
        {"id": "no medium", "conversations": talk},
        {
            "id": "no mark",
            "image": "missing.png",
            "conversations": [plain, answer],
        },
        {"id": "no answer", "conversations": [plain, {**answer, "value": ""}]},
    ]
    with_conversations(workspace, records)
    assert run(workspace, "ingest")[0] == 0
    code, told = run(workspace, "validate")
    assert code == 4
    assert "report.html" in told
    kept = next((workspace / "runs").glob("*-validate-*/output.txt")).read_text()
    assert told.partition("error: ")[2].strip() in kept
    assert not (workspace / "artifacts/validated/image").exists()
    report = read_json(Layout(workspace).contract_report / "report.json")
    assert sum(counts["listed"] for counts in report["sets"]) == len(records)
    assert sum(counts["quarantined"] for counts in report["sets"]) == len(records)
    refused = json.dumps(report["sets"])
    for code in ("unsafe_path", "missing_media", "slot_without_media", "media_without_slot"):
        assert code in refused, refused


def test_a_source_that_is_no_json_stops_with_its_place(workspace):
    with_conversations(workspace, [], text='[{"conversations": [')
    code, told = run(workspace, "ingest")
    assert code == 3
    assert "train.json" in told
    assert "Traceback" not in told


def test_asking_without_a_champion_says_what_to_do(workspace):
    code, told = run(workspace, "ask", "What is it?")
    assert code == 2
    assert "uni-moe run" in told


def test_an_unknown_launcher_is_told_before_anything_starts(workspace):
    (workspace / "machine.yaml").write_text("launcher: mpi\n")
    code, told = run(workspace, "tune")
    assert code == 2
    assert "launcher: 'mpi' is not one of 'none', 'torchrun', 'deepspeed', 'slurm'" in told
    assert "remedy: mend the lines named above" in told
    assert not (workspace / "runs").exists()
