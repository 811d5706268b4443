"""Files of media, made for a test, and packed into a workspace's shards as ingest does."""

import io

import numpy as np
import soundfile
from PIL import Image

from uni_moe.data.shards import ShardWriter
from uni_moe.records import MediaRef


def pack(folder, kind, *files, sample="mine/1", **told):
    """Put files of one medium into a shard of a folder; return the reference."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder)
    hashes = [f"{number:064}" for number, _ in enumerate(files)]
    shard, members = writer.add(sample, files, hashes, ["a"] * len(files))
    writer.close()
    return MediaRef(kind, "0" * 64, members, sum(map(len, files)), shard, **told)


def picture(size=(1000, 500), colour="red", **how):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, **({"format": "PNG"} | how))
    return file.getvalue()


def sound(seconds, rate=8000, channels=1):
    """Return WAV: each further channel is the first one at a lower level."""
    file = io.BytesIO()
    wave = 0.9 * np.sin(np.arange(int(seconds * rate)) / 5)
    levels = np.linspace(1.0, 0.0, channels, endpoint=False)
    soundfile.write(file, wave[:, None] * levels, rate, format="WAV")
    return file.getvalue()
