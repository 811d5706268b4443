"""The one door to DVC: its graph, its status, and running one stage."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.locks import release_dead_locks
from flows.plan import CODE, Plan, make_plan, param_changes
from uni_moe import leash
from uni_moe.errors import ConfigError, StageError
from uni_moe.storage.dvc_data import Kept
from uni_moe.yaml_text import parse_yaml

LAST_LINES = 15
PATIENCE_S = 5.0
AGAIN = "give the same command again; it goes on from here."
_ADVICE = (
    *("To track", "To enable", "Use `dvc", "\tgit add", "\tdvc config", "Generating lock"),
    *("Updating lock", "Running stage", "> ", "WARNING: stage: "),
)
_running: set[subprocess.Popen[str]] = set()
_stopping = threading.Event()


def plan_stages(root: Path) -> Plan:
    """Say what must run in a workspace: one look at the graph, one status call.

    Raises:
        ConfigError: the folder is no workspace, or dvc.yaml cannot be read.
        StageError: another process works in the workspace.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    try:
        release_dead_locks(root, lock_on)
        # DVC names stages and files as seen from where we stand, and collects them once in a lock.
        with chdir(root), Repo() as repo, lock_repo(repo):
            graph = repo.index.graph
            parents = {
                stage.name: [parent.name for parent in graph.successors(stage)]
                for stage in graph.nodes
            }
            changes = {stage.name: _param_changes(stage) for stage in graph.nodes}
            never = {stage.name for stage in graph.nodes if _never_ran(stage)}
            return make_plan(parents, repo.status(), changes=changes, never_run=never)
    except LockError as error:
        raise _in_use(error) from error
    except DvcException as error:
        raise _no_graph(root, error) from error


def _in_use(error: Exception) -> StageError:
    return StageError(
        f"The workspace is in use: {error}",
        cause="another `uni-moe run` or `dvc repro` works in it.",
        remedy="wait until it has ended.",
    )


def _no_graph(root: Path, error: object) -> ConfigError:
    return ConfigError(
        f"{root} has no graph that can be read: {error}",
        cause="the folder is no workspace, or dvc.yaml or params.yaml has a mistake.",
        remedy="make a workspace with `uni-moe new FOLDER`, or mend the file named above.",
    )


def keep_remote(root: Path, name: str, options: Mapping[str, str]) -> None:
    """Write a remote into a workspace's config, in place of one of this name, as its default.

    Raises:
        ConfigError: the folder is no workspace, or DVC refuses an option.
    """
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        with Config(dvc_dir=str(root / ".dvc"), validate=True).edit("repo") as config:
            config["remote"][name] = dict(options)
            config["core"]["remote"] = name
    except (DvcException, OSError) as error:
        raise ConfigError(
            f"The remote could not be written into {root / '.dvc' / 'config'}: {error}",
            cause="the folder is no workspace, or its config has a mistake.",
            remedy="make a workspace with `uni-moe new FOLDER`, or mend the file.",
        ) from error


def cache_folder(root: Path) -> Path:
    """Return where DVC keeps a workspace's data, which may be shared and lie anywhere.

    Raises:
        ConfigError: the folder is no workspace, or its config has a mistake.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local_cache_dir).absolute()
    except DvcException as error:
        raise _no_graph(root, error) from error


def share_cache(home: Path, root: Path) -> None:
    """Let a workspace keep its data in the cache of another; files are linked, not copied.

    Raises:
        ConfigError: one of them is no workspace, or its config has a mistake.
    """
    from dvc.config import Config
    from dvc.exceptions import DvcException

    cache = str(cache_folder(home))
    try:
        with Config(dvc_dir=str(root / ".dvc"), validate=True).edit("repo") as config:
            config["cache"] |= {"dir": cache, "type": ["reflink", "hardlink", "copy"]}
    except (DvcException, OSError) as error:
        raise _no_graph(root, error) from error


def checkout(root: Path) -> None:
    """Bring into a workspace what its lock names, as far as the cache has it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with suppress(DvcException), chdir(root), Repo() as repo:
        repo.checkout(force=True, allow_missing=True)


def kept_data(root: Path) -> Kept:
    """Return which data the workspace's lock names, and where DVC's cache lies.

    Raises:
        ConfigError: the folder is no workspace, or its graph cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with chdir(root), Repo() as repo:
            return _kept(repo)
    except DvcException as error:
        raise _no_graph(root, error) from error


@contextmanager
def data_at_rest(root: Path) -> Iterator[Kept]:
    """Return the same, and keep every other DVC out of the workspace as long as the block lasts.

    Raises:
        ConfigError: the folder is no workspace, or its graph cannot be read.
        StageError: another process works in the workspace.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo, lock_repo

    try:
        with chdir(root):
            repo = Repo()
            found = _kept(repo)
        with repo, lock_repo(repo):
            yield found
    except LockError as error:
        raise _in_use(error) from error
    except DvcException as error:
        raise _no_graph(root, error) from error


def _kept(repo: Any) -> Kept:  # noqa: ANN401 - dvc is untyped
    outs = [out for stage in repo.index.stages for out in stage.outs if out.use_cache]
    roots = frozenset(str(out.hash_info.value) for out in outs if out.hash_info.value)
    return Kept(roots, Path(repo.cache.local.path).absolute())


def changed_since(root: Path, lock: str, name: str) -> list[str]:
    """Return which data of a stage are others now than the text of a lock tells, code aside.

    Raises:
        ConfigError: the folder is no workspace, or its graph cannot be read or lacks the stage.
    """
    from dvc.dependency import loads_from
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    told = parse_yaml(lock)["stages"].get(name, {}).get("deps", [])
    data = {one["path"]: one["md5"] for one in told if not one["path"].endswith(CODE)}
    if not data:
        return []
    try:
        with chdir(root), Repo() as repo:
            stage = next((one for one in repo.index.stages if one.addressing == name), None)
            if stage is None:
                raise _no_graph(root, f"dvc.yaml has no stage {name!r}")
            deps = loads_from(stage, list(data))
            return [
                f"{path} is {'another one' if dep.exists else 'gone'}"
                for dep, (path, md5) in zip(deps, data.items(), strict=True)
                if not dep.exists or dep.get_hash().value != md5
            ]
    except DvcException as error:
        raise _no_graph(root, error) from error


def lock_on(file: Path) -> AbstractContextManager[object]:
    """Return DVC's lock on a file, as DVC takes it."""
    from dvc.lock import make_lock

    found: AbstractContextManager[object] = make_lock(str(file), tmp_dir=str(file.parent))
    return found


def _param_changes(stage: Any) -> list[str]:  # noqa: ANN401 - dvc is untyped
    """Return which params of a stage are others than when it ran, from what to what."""
    from dvc.dependency.param import ParamsDependency

    return [
        change
        for dep in stage.deps
        if isinstance(dep, ParamsDependency) and dep.hash_info.value is not None
        for change in param_changes(dep.hash_info.value, dep.read_params())
    ]


def _never_ran(stage: Any) -> bool:  # noqa: ANN401 - dvc is untyped
    """Say whether dvc.lock knows nothing of a stage's results."""
    return bool(stage.outs) and all(out.hash_info.value is None for out in stage.outs)


def run_stage(
    root: Path,
    name: str,
    *,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    limit_s: float | None = None,
) -> None:
    """Run one stage by `dvc repro`; nothing of it outlives us, even if we are killed.

    Raises:
        StageError: the stage failed, or took longer than it may; it says what the stage said.
    """
    words = ["--wait-for-lock", "repro", "--single-item", name]
    run_module("dvc", words, root, name=name, environment=environment, say=say, limit_s=limit_s)


def run_module(  # noqa: PLR0913 - a program has this much around it
    module: str,
    words: Sequence[str],
    root: Path,
    *,
    name: str,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    limit_s: float | None = None,
) -> None:
    """Run a Python module as a program on the leash, and pass on what it says.

    What has not ended after `limit_s` is killed with all its children.

    Raises:
        StageError: it failed, or took too long; it says what the program said.
    """
    if _stopping.is_set():
        raise StageError(f"{name} was not begun.", cause="the run was stopped.", remedy=AGAIN)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = leash.start(
        module,
        words,
        folder=root,
        environment={"TQDM_MININTERVAL": "10", "PATH": path, **environment},
    )
    late = threading.Event()
    with process, _ended_after(limit_s, process, late):
        _running.add(process)
        try:
            last = _follow(process, say)
            code = process.wait()
        finally:
            leash.signal_group(process, signal.SIGKILL)  # DVC may have died before its child
            _running.discard(process)
    if late.is_set() and code != 0:
        raise StageError(
            f"{name} was ended after {limit_s:g} s.",
            cause="it took longer than `stage_limit_s` in machine.yaml allows.",
            remedy=f"look at its folder in runs/, allow more time, then {AGAIN}",
        )
    if code != 0:
        raise failure(name, last)


@contextmanager
def _ended_after(
    limit_s: float | None, process: subprocess.Popen[str], late: threading.Event
) -> Iterator[None]:
    """Kill a process and its children when their time is up, and note that it was so."""

    def end() -> None:
        late.set()
        leash.signal_group(process, signal.SIGKILL)

    if limit_s is None:
        yield
        return
    clock = threading.Timer(limit_s, end)
    clock.start()
    try:
        yield
    finally:
        clock.cancel()


def begin_stages() -> None:
    """Let stages begin: an earlier flow of this process may have been stopped."""
    _stopping.clear()


def stop_stages() -> None:
    """Ask every running stage to end and begin no other; what does not end is killed."""
    _stopping.set()
    for process in list(_running):
        leash.signal_group(process, signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_S
    while _running and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in list(_running):
        leash.signal_group(process, signal.SIGKILL)


def failure(name: str, lines: Sequence[str]) -> StageError:
    """Return the error of a failed stage: its own what, cause, remedy and exit code.

    A stage that said none of them shows its last lines.
    """
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    said = list(lines[starts[-1] :]) if starts else []
    marks = [
        next((i for i, line in enumerate(said) if line.lstrip().startswith(mark)), 0)
        for mark in ("cause:", "remedy:")
    ]
    if 0 < marks[0] < marks[1]:
        what = "\n".join(said[: marks[0]]).removeprefix("error: ")
        cause, remedy = (said[i].partition(":")[2].strip() for i in marks)
        error = StageError(f"{name}: {what}", cause=cause, remedy=remedy)
        ended = re.search(r"exited with (\d+)$", said[-1])  # DVC's last word
        if ended:
            error.exit_code = int(ended[1])
        return error
    return StageError(
        f"The stage {name} failed. Its last lines:\n    " + "\n    ".join(lines),
        cause="the lines above say it.",
        remedy=f"mend it, then give the same command again; look closer with `uni-moe {name}`.",
    )


def _follow(process: subprocess.Popen[str], say: Callable[[str], None]) -> list[str]:
    """Pass on every line but DVC's advice, and keep the last ones."""
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=LAST_LINES)
    for raw in process.stdout:
        line = raw.rstrip()
        if line and not line.startswith(_ADVICE):
            last.append(line)
            say(line)
    return list(last)
