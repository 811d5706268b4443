"""Media in a corpus, and makers of their features whose encoders can be counted."""

import hashlib
import io
from collections import Counter

import numpy as np
import soundfile

from tests.unit.evaluate.tiny_model import medium, network
from uni_moe.artifacts import write_artifact
from uni_moe.data.features import FeatureCache
from uni_moe.data.shards import ShardWriter
from uni_moe.feature_maker import FeatureMaker
from uni_moe.machine import FeatureCacheSettings
from uni_moe.records import MEDIA_KINDS, MediaRef

SETTINGS = {"spare_share": 0.0}


def sound(number, windows):
    """Return a tone of so many windows of a second, the last one half full."""
    wave = np.sin(np.arange(int(16_000 * (windows - 0.5))) * 0.02 * (number + 1)) * 0.5
    stream = io.BytesIO()
    soundfile.write(stream, wave.astype(np.float32), 16_000, format="WAV")
    return stream.getvalue()


def made(kind, number):
    if kind in ("audio", "speech"):
        return sound(number, 1 + number % 3)
    return medium(kind, number)


def write_media(folder, count):
    """Write a corpus's shards; return the references, all kinds in turn."""
    refs = []
    with write_artifact(folder, stage="p", kind="corpus", params={}, parents={}) as draft:
        writer = ShardWriter(draft.folder)
        for number in range(count):
            for kind in MEDIA_KINDS:
                data = made(kind, number)
                sha = hashlib.sha256(data).hexdigest()
                shard, members = writer.add(sha, [data], [sha], ["x.bin"])
                refs.append(MediaRef(kind, sha, members, len(data), shard))
        writer.close()
    return refs


def maker(cache, tell=None, *, parts=None, **settings):
    """Return a maker of features of the tiny network, and what it tells."""
    model, processor = parts or network()
    chosen = FeatureCacheSettings(**(SETTINGS | settings))
    held = None if cache is None else FeatureCache(cache, chosen, tell or fail)
    return FeatureMaker(model, processor, chosen, held)


def fail(trouble):
    raise AssertionError(str(trouble))


def counting(features):
    """Let a maker's encoders be counted as they run, by kind."""
    ran = Counter()
    encode = features.towers.encode

    def counted(kind, values, padding=None):
        ran[kind] += 1
        return encode(kind, values, padding)

    features.towers.encode = counted
    return ran


def rank(number, learner, steps, ready, answers):
    """Take a rank's share of two epochs; tell how many media were encoded in each."""
    features = learner.maker.feature_maker
    found = []
    for epoch in range(2):
        for step in range(epoch * steps, (epoch + 1) * steps):
            learner.micro_batches(step, number, 2)
            ready.wait(timeout=60)  # ranks add their losses up
        found.append(features.counts["encoded"])
    answers.put((found[0], found[1] - found[0]))
