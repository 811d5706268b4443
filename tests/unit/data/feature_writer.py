"""Programs that use a feature cache beside the test: `python feature_writer.py VERB FOLDER …`.

A feature's bytes follow from its content's number alone, so whoever reads one can tell whether it
is right.
"""

import hashlib
import json
import resource
import signal
import sys
from pathlib import Path

from uni_moe.data.blocks import Array
from uni_moe.data.features import FeatureCache
from uni_moe.machine import FeatureCacheSettings

ABOUT = {"kind": "image", "weights": "ab" * 32}


def name_of(number):
    return f"image/{number:064x}/None/None/None"


def feature(number, size=3000):
    data = hashlib.shake_128(str(number).encode()).digest(4 * size)
    return Array("F32", (1, size), data)


def open_store(folder, tell=None, **settings):
    settings = {"spare_share": 0.0} | settings
    told = tell or (lambda trouble: sys.stderr.write(f"{trouble}\n"))
    return FeatureCache(Path(folder), FeatureCacheSettings(**settings), told).store("image", ABOUT)


def take(folder, first, last):
    """Compute what is not kept of a range of numbers, publishing now and then; print how many."""
    store, computed = open_store(folder), 0
    for number in range(int(first), int(last)):
        found = store.get(name_of(number))
        if found is None:
            computed += 1
            store.put(name_of(number), feature(number))
        else:
            assert bytes(found.data) == feature(number).data, number
        if number % 7 == 0:
            store.publish()
    store.publish()
    say(computed)


def write_forever(folder, first, size):
    """Publish one large block after the other until killed."""
    store, number = open_store(folder), int(first)
    say("begun")
    while True:
        store.put(name_of(number), feature(number, int(size)))
        store.publish()
        number += 1


def write_beyond(folder, most):
    """Write with files limited to `most` bytes: the system takes a part and refuses the rest."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
    fill(folder)


def fill(folder):
    """Keep ten features and publish each; say what the troubles were and what is kept.

    The share that stays spare is such that only the system itself says when there is no room.
    """
    troubles = []
    store = open_store(folder, troubles.append, spare_share=-1e6)
    for number in range(10):
        store.put(name_of(number), feature(number, 100_000 * (1 + number)))
        store.publish()
    say(
        json.dumps(
            {"troubles": [t.what for t in troubles], "kept": held(store), "left": left(store)}
        )
    )


def held(store):
    return [number for number in range(10) if store.get(name_of(number)) is not None]


def left(store):
    """Return how many blocks and how many drafts lie in the folder."""
    files = list(store.folder.glob("*.safetensors"))
    return [len(files), sum(file.name.startswith(".") for file in files)]


def say(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    verbs = {"take": take, "write_forever": write_forever, "write_beyond": write_beyond}
    (verbs | {"fill": fill})[sys.argv[1]](*sys.argv[2:])
