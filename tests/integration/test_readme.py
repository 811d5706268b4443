"""What the README shows in Python runs."""

import re
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessorPil, WhisperFeatureExtractor

from tests.unit.checkpoints.published import model_that_hears
from uni_moe.model.processor import UniMoeProcessor
from uni_moe.train.tokenizer import train_tokenizer

README = Path(__file__).parents[2] / "README.md"


def test_a_model_from_python(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    tokenizer = train_tokenizer(["USER: what is it? ASSISTANT: a red cat"] * 9, vocab_size=280)
    model = model_that_hears("speech", vocabulary=len(tokenizer))
    model.save_pretrained(tmp_path)
    UniMoeProcessor.for_model(
        model.config,
        tokenizer=tokenizer,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        feature_extractor=WhisperFeatureExtractor(),
        system_prompt="",
    ).save_pretrained(tmp_path)
    known = {
        "folder": tmp_path,
        "picture": Image.new("RGB", (20, 20), (200, 0, 0)),
        "sound": np.zeros(9_000, dtype=np.float32),
    }
    exec(code, known)
    one, other = known["answers"]
    assert one == other
    assert isinstance(one, str)
