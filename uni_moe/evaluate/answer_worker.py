"""A process that keeps a model or two and answers questions, one after the other.

It reads a JSON object a line and writes one or more a line. A question is

    {"id", "model": FOLDER, "question", "max_new_tokens",
     "files": [{"kind", "path", "name"}]}

and is followed by `{"id", "doing"}` as it goes on, and at last by `{"id", "answer"}` or
`{"id", "error": {"what", "cause", "remedy"}}`. The files are gone once they are read. The process
ends with whoever holds the other end of its input, and when nobody asks for a while.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from uni_moe.artifacts import read_json
from uni_moe.data.media import Media
from uni_moe.data.sounds import RATE_HZ
from uni_moe.errors import DataError, UniMoeError
from uni_moe.evaluate.ask import ORDER, Opened, ask, check_marks, decoded, open_model
from uni_moe.evaluate.visits import visits
from uni_moe.records import MediaKind

IDLE_S = 600.0
MODELS = 2  # kept in memory
MOST_TOKENS = 512
_SHOWN_PX = 240  # the longer side of a picture that is sent back
_SHOWN_FRAMES = 8
_GENTLE = 5  # trainings on this machine come first

Tell = Callable[[dict[str, Any]], None]


def serve(*, idle_s: float = IDLE_S, models: int = MODELS) -> None:
    """Answer what comes by standard input until it ends or nobody asks for a while.

    Args:
        idle_s: how long nobody may ask.
        models: how many are kept in memory.
    """
    os.nice(_GENTLE)
    tell = _private_output()
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()
    shelf = Shelf(models)
    while True:
        try:
            line = lines.get(timeout=idle_s)
        except queue.Empty:
            return
        _answer_line(line, shelf, tell)


class Shelf:
    """The models in memory; the one that was asked longest ago goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Opened] = OrderedDict()

    def take(self, folder: str) -> Opened:
        """Return a model, loaded if it is not there."""
        if folder in self._kept:
            self._kept.move_to_end(folder)
            return self._kept[folder]
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)  # before the next one needs its memory
        self._kept[folder] = open_model(Path(folder))
        return self._kept[folder]

    def holds(self, folder: str) -> bool:
        """Say whether a model is there."""
        return folder in self._kept


def _private_output() -> Tell:
    """Keep standard output for answers: what libraries print goes where errors go."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    return tell


def _listen(source: TextIO, lines: queue.Queue[str]) -> None:
    for line in source:
        lines.put(line)
    os._exit(0)  # who asks is gone, whatever is being computed


def _answer_line(line: str, shelf: Shelf, tell: Tell) -> None:
    asked: dict[str, Any] = json.loads(line)
    name = {"id": asked["id"]}
    try:
        tell(name | {"answer": answered(asked, shelf, lambda doing: tell(name | {"doing": doing}))})
    except UniMoeError as error:
        told = {"what": error.what, "cause": error.cause, "remedy": error.remedy}
        tell(name | {"error": told})
    except Exception as error:  # noqa: BLE001 - one question's trouble ends no worker
        traceback.print_exc()
        tell(name | {"error": _unknown(error)})


def answered(asked: Mapping[str, Any], shelf: Shelf, say: Callable[[str], None]) -> dict[str, Any]:
    """Answer a question; tell what the model was shown and which experts its tokens visited.

    Raises:
        UniMoeError: it cannot be answered.
    """
    started = time.monotonic()
    folder, files = str(asked["model"]), _files(asked["files"])
    check_marks(asked["question"], files)
    if not shelf.holds(folder):
        say("loading the model")
    opened = shelf.take(folder)
    loaded = time.monotonic()
    say("reading the files")
    media = _read(files, asked["files"], opened.processor.video_frames)
    say("answering")
    most = max(1, min(MOST_TOKENS, int(asked["max_new_tokens"])))
    said = ask(opened, asked["question"], media, max_new_tokens=most)
    spoken = time.monotonic()
    return {
        "text": said.text,
        "shown": [_shown(kind, one) for kind, one in media],
        "visits": visits(opened, said).to_json(),
        "slots": _slots(Path(folder)),
        "loading_s": round(loaded - started, 2),
        "answering_s": round(spoken - loaded, 2),
    }


def _files(told: Sequence[Mapping[str, str]]) -> dict[MediaKind, list[Path]]:
    return {kind: [Path(one["path"]) for one in told if one["kind"] == kind] for kind in ORDER}


def _read(
    files: Mapping[MediaKind, Sequence[Path]], told: Sequence[Mapping[str, str]], frames: int
) -> list[tuple[MediaKind, Media]]:
    """Decode what was uploaded, and remove it."""
    names = {Path(one["path"]): one["name"] for one in told}
    try:
        return decoded(files, frames, names)
    except DataError as error:
        raise DataError(
            error.what,
            cause="a file is damaged, or is not what its name says; each is told above.",
            remedy="give a picture, a film, a sound or speech where each is asked for.",
        ) from error
    finally:
        for path in names:
            path.unlink(missing_ok=True)


def _shown(kind: MediaKind, media: Media) -> dict[str, Any]:
    """Return what the model was shown, small enough to be sent."""
    if isinstance(media, Image.Image):
        return {"kind": kind, "pictures": [_small(media)]}
    if isinstance(media, list):
        return {"kind": kind, "pictures": [_small(frame) for frame in media[:_SHOWN_FRAMES]]}
    return {"kind": kind, "duration_s": round(len(media) / RATE_HZ, 2)}


def _small(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_SHOWN_PX, _SHOWN_PX))
    data = io.BytesIO()
    small.convert("RGB").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def _slots(folder: Path) -> list[str]:
    """Return what each expert started from, where the receipt tells."""
    file = folder / "receipt.json"
    return [str(slot) for slot in read_json(file)["slots"]] if file.is_file() else []


def _unknown(error: Exception) -> dict[str, str]:
    return {
        "what": f"The model could not answer: {type(error).__name__}: {error}",
        "cause": "a mistake in this program or a model that is not whole.",
        "remedy": "`uni-moe ask` with the same question tells more; report it if it is ours.",
    }
