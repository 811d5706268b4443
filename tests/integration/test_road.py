"""The whole road at its smallest, by the real command: run, run again, kill, edit, ask."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "uni_moe"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
}


def command(workspace, *words, code=0):
    done = subprocess.run(
        [*COMMAND, "--workspace", str(workspace), *words],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def card_ids(workspace):
    from uni_moe.artifacts import Layout, read_card

    layout = Layout(workspace)
    return {
        layout.name_of(file.parent): read_card(file.parent).id
        for file in layout.artifacts.rglob("card.json")
    }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace of the smoke recipe with a small sharded source of sounds, run once."""
    folder = tmp_path_factory.mktemp("road") / "space"
    command(ROOT, "new", str(folder), "--recipe", "smoke")
    make_sounds(folder / "data" / "tones")
    params = (folder / "params.yaml").read_text()
    source = "  - {kind: sharded, name: tones, path: data/tones, tasks: [pitch]}\n\ncontract:"
    (folder / "params.yaml").write_text(params.replace("\ncontract:", source, 1))
    said = command(folder, "run", "--reason", "a test")
    assert "21 stages to run" in said
    assert "promoted" in said
    return folder


def make_sounds(folder, *, loud=8000):
    """Write eight tones as a sharded set; `loud` changes one of them."""
    import io
    import math
    import tarfile

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for i in range(8):
            data = io.BytesIO()
            with wave.open(data, "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                level = loud if i == 3 else 8000
                tone = (int(level * math.sin(t * (0.1 + 0.02 * i))) for t in range(8000))
                file.writeframes(b"".join(v.to_bytes(2, "little", signed=True) for v in tone))
            info = tarfile.TarInfo(f"{i}.wav")
            info.size = data.tell()
            data.seek(0)
            tar.addfile(info, data)
            medium = {"type": "audio", "shard": "train-000.tar", "member": f"{i}.wav"}
            split = "test" if i > 5 else "train"
            lines.append(
                {
                    "id": f"tones/{i}",
                    "set": "tones",
                    "split": split,
                    "media": [medium],
                    "label": "high" if i % 2 else "low",
                    "caption": "a tone",
                }
            )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = {
        "name": "pitch",
        "prompt": "How is the tone?",
        "answer_field": "label",
        "choices": ["low", "high"],
        "metric": "accuracy",
    }
    card = {"name": "tones", "licence": "CC0", "modality": ["audio"], "tasks": [task]}
    (folder / "dataset.json").write_text(json.dumps(card))


def test_a_run_leaves_a_judged_registered_model(workspace):
    from uni_moe.artifacts import Layout
    from uni_moe.records import EvalReport
    from uni_moe.registry.read import champion

    version = champion(Layout(workspace))
    assert version is not None
    assert version.number == 1
    assert (version.folder / "model" / "config.json").is_file()
    report = EvalReport.from_json(
        json.loads((workspace / "artifacts/report/report.json").read_text())
    )
    assert set(report.modalities) == {"text", "image", "video", "audio", "speech"}
    assert report.slots == ["base", "image", "video", "audio", "speech"]
    assert set(report.losses) >= {"align@image", "experts@speech", "tune"}


def test_no_artifact_names_the_folder_it_was_made_in(workspace):
    for file in (workspace / "artifacts").rglob("*.json"):
        assert str(workspace) not in file.read_text(), file


def test_a_second_run_says_that_nothing_has_to_run(workspace):
    said = command(workspace, "run")
    assert "Nothing has to run" in said
    assert "modality" in said


def test_the_lineage_goes_back_to_the_sources(workspace):
    said = command(workspace, "lineage")
    for name in (
        "artifacts/model",
        "artifacts/assembled",
        "artifacts/experts/speech",
        "artifacts/corpus/audio",
        "artifacts/samples/audio",
        "tones",
        "playground",
    ):
        assert name in said


def test_a_question_gets_an_answer(workspace, tmp_path):
    from PIL import Image

    Image.new("RGB", (48, 48), (200, 0, 0)).save(tmp_path / "red.png")
    said = command(workspace, "ask", "--json", "--image", str(tmp_path / "red.png"), "What is it?")
    assert isinstance(json.loads(said.strip().splitlines()[-1])["answer"], str)


def test_all_files_that_cannot_be_shown_are_named_at_once(workspace, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    said = command(
        workspace,
        "ask",
        "--image",
        str(tmp_path / "text.png"),
        "--speech",
        str(tmp_path / "missing.wav"),
        "What?",
        code=3,
    )
    assert "text.png" in said
    assert "missing.wav" in said


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(workspace):
    before = card_ids(workspace)["artifacts/experts/speech"]
    shutil.rmtree(workspace / "artifacts/experts/speech")
    states = workspace / "state"
    process = subprocess.Popen(
        [*COMMAND, "--workspace", str(workspace), "experts@speech"],
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(states.glob("experts@speech-*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workspace / "artifacts/experts/speech").exists()
    said = command(workspace, "experts@speech")
    assert "continues at step 4" in said
    assert card_ids(workspace)["artifacts/experts/speech"] == before
    assert not list(states.glob("experts@speech-*/step-*"))


def test_dvc_alone_makes_the_same_model(workspace):
    before = card_ids(workspace)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "tune"],
        cwd=workspace,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert card_ids(workspace) == before


@pytest.mark.operate
def test_an_edited_sound_leaves_pictures_films_and_speech_alone(workspace):
    make_sounds(workspace / "data" / "tones", loud=9000)
    plan = command(workspace, "plan")
    assert "ingest" in plan
    assert "data is modified" in plan
    before = card_ids(workspace)
    runs = set((workspace / "runs").iterdir())
    said = command(workspace, "run", "--reason", "a louder tone")
    ran = {
        json.loads((folder / "run.json").read_text())["stage"]
        for folder in set((workspace / "runs").iterdir()) - runs
    }
    assert {
        "ingest",
        "validate",
        "prepare@audio",
        "foundation@audio",
        "align@audio",
        "experts@audio",
        "assemble",
        "tune",
        "evaluate",
    } <= ran
    untouched = [
        f"{stage}@{m}"
        for stage in ("foundation", "align", "experts")
        for m in ("image", "video", "speech", "language")
    ]
    assert not ran & set(untouched), said[-2000:]
    after = card_ids(workspace)
    for name in ("foundation/image", "foundation/speech", "align/image", "experts/video"):
        assert before[f"artifacts/{name}"] == after[f"artifacts/{name}"]
    assert before["artifacts/model"] != after["artifacts/model"]


@pytest.mark.operate
def test_a_champion_is_judged_again_when_the_items_change(workspace):
    """Another model on fewer items: the flow judges the champion on those before the gate."""
    file = workspace / "params.yaml"
    text = file.read_text()
    head, tune = text.split("\ntune:", 1)
    tune = tune.replace("learning_rate: ", "learning_rate: 2", 1)
    assert "max_items: null" in text
    file.write_text(f"{head}\ntune:{tune}".replace("max_items: null", "max_items: 5"))
    said = command(workspace, "run", "--reason", "fewer items")
    assert "the champion was judged on other items" in said
    assert "judged on different items" not in said
    assert "nothing has to run" in command(workspace, "run").lower()
