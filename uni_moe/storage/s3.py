"""The store that is a bucket of S3 or MinIO. This is the only file that knows the minio client.

`ab12/model/weights` is an object; `ab12/model.sha256` is written last, when every object was read
back and is what its sums say. Without it the key is not kept, so a push that breaks off leaves no
half folder, and the next one sends what is not there yet. ETags are not trusted: they are no hash
of the content where an object came in parts or is encrypted.

Not covered: two processes that put different contents under one key at the same moment. Keys are
made of content, so this needs a broken hash; the next reader is told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

import certifi
from minio import Minio
from minio.error import MinioException, S3Error, ServerError
from urllib3 import PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from uni_moe.artifacts import sha256_file, whole_folder
from uni_moe.errors import StoreError
from uni_moe.storage.blobs import checked_key, not_kept, other_content, room
from uni_moe.storage.credentials import Credentials
from uni_moe.storage.objects import Stored
from uni_moe.storage.remote import STORE, Remote
from uni_moe.storage.s3_faults import refused, unreachable
from uni_moe.storage.sums import (
    SUMS,
    check_sums,
    differing,
    read_sums,
    sums_of,
    sums_text,
)

_T = TypeVar("_T")
CONNECT_S, ANSWER_S, TRIES = 5.0, 60.0, 3
PART_BYTES = 64 * 2**20  # three of them are in memory at once
_CHUNK_BYTES = 2**20
_NOWHERE = Path(os.devnull)
_OUTSIDE = (500, 502, 503, 504)  # a server's own trouble, gone a moment later
_ABSENT = ("NoSuchKey", "NoSuchObject")
_PUSH = (
    "`uni-moe push --verify`, where the folder is whole, finds what is wrong and sends it again."
)


class S3Bucket:
    """A store below a prefix of a bucket: one part of a remote, by default the one that is ours."""

    def __init__(self, remote: Remote, credentials: Credentials, part: str = STORE) -> None:
        self.remote = remote
        self.prefix = remote.prefix(part)
        address = urlsplit(remote.endpoint or f"https://s3.{remote.region}.amazonaws.com")
        self._client = Minio(
            address.netloc,
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            session_token=credentials.session_token,
            secure=address.scheme == "https",
            region=remote.region,
            http_client=_pool(),
        )

    def put_folder(self, key: str, folder: Path, sums: Mapping[str, str] | None = None) -> None:
        """Send a folder's files, small ones first, read each back, and write its sums last.

        Files that are there with the right bytes are not sent again.

        Raises:
            LineageError: the key holds other content, or the folder is not what `sums` says.
            StoreError: the server cannot be reached, refuses, is full, or gives other bytes back.
        """
        checked_key(key)
        sums = sums_of(folder) if sums is None else sums
        with self._telling(key):
            kept = self._kept(key)
            if kept is not None:
                self._same(key, kept, sums)
                return
            check_sums(_here(folder, sums), sums, str(folder), "let the stage run again.")
            there = self._listed(f"{key}/")
            for name in sorted(sums, key=lambda name: (folder / name).stat().st_size):
                self._send(f"{key}/{name}", folder / name, sums[name], there)
            self._write(key + SUMS, sums_text(sums).encode("utf-8"))

    def get_folder(self, key: str, target: Path) -> None:
        """Fetch a kept folder to `target`, whole or not at all, every byte checked.

        Raises:
            LineageError: the key is not kept, or what is kept was changed.
            StoreError: the server cannot be reached or refuses, or our disk has no room.
        """
        sums = self.sums(key)
        with self._telling(key), room(target), whole_folder(target) as copy:
            found = {name: self._fetch(f"{key}/{name}", copy / name) for name in sums}
            there = {name: sha256 for name, sha256 in found.items() if sha256 is not None}
            check_sums(there, sums, self._named(key), _PUSH)

    def has(self, key: str) -> bool:
        """Say whether a key is kept."""
        with self._telling(key):
            return self._kept(key) is not None

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with a prefix, in order."""
        with self._telling(prefix):
            names = sorted(self._listed(prefix))
        found: set[str] = set()
        for name in names:  # a file of a kept folder may end like sums: no key lies in another
            inside = any(str(folder) in found for folder in PurePosixPath(name).parents)
            if name.endswith(SUMS) and not inside:
                found.add(name.removesuffix(SUMS))
        return sorted(found)

    def sums(self, key: str) -> dict[str, str]:
        """Return the files kept under a key with their sha256.

        Raises:
            LineageError: the key is not kept, or its sums are broken.
            StoreError: the server cannot be reached or refuses.
        """
        checked_key(key)
        with self._telling(key):
            kept = self._kept(key)
        if kept is None:
            raise not_kept(key, f"store {self.remote.text()}")
        return kept

    def wrong(self, key: str) -> list[str]:
        """Read every byte kept under a key; return the files that are not what its sums say."""
        sums = self.sums(key)
        with self._telling(key):
            return differing(self._found(key, sums), sums)

    def forget(self, key: str) -> None:
        """Remove a key's sums, without which it is not kept; its objects wait for the next put."""
        self.remove(key + SUMS)

    def erase(self, key: str) -> None:
        """Keep a key no more and remove its objects; killed in between, a second time finishes."""
        self.forget(checked_key(key))
        for name in self.objects(f"{key}/"):
            self.remove(name)

    def objects(self, prefix: str = "") -> list[str]:
        """Return the names of all objects that begin with a prefix, whoever put them there."""
        return sorted(self.listed(prefix))

    def listed(self, prefix: str = "") -> dict[str, Stored]:
        """Return the same with each one's size, and its time by the server's clock."""
        with self._telling(prefix):
            return self._listed(prefix)

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        with self._telling(name):
            self._write(name, data)

    def send(self, name: str, file: Path) -> None:
        """Write a file's bytes as an object."""
        with self._telling(name):
            self._upload(name, file)

    def content(self, name: str) -> bytes | None:
        """Return an object's bytes, None where it is absent."""
        with self._telling(name):
            return self._read(name, lambda response: response.read())

    def md5(self, name: str) -> str | None:
        """Read an object; return the md5 of its bytes, None where it is absent."""
        with self._telling(name):
            return self._read(name, lambda response: _written(response, _NOWHERE, "md5"))

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._telling(name):
            self._client.remove_object(self.remote.bucket, self._object(name))

    def check(self) -> None:
        """Ask the server whether the bucket is there for us.

        Raises:
            StoreError: it cannot be reached, refuses us, or has no such bucket.
        """
        with self._telling(""):
            next(iter(self._client.list_objects(self.remote.bucket, self._object(""))), None)

    def make_bucket(self) -> bool:
        """Make the bucket where it is not there yet; say whether it was made."""
        with self._telling(""):
            if self._client.bucket_exists(self.remote.bucket):
                return False
            self._client.make_bucket(self.remote.bucket)
            return True

    def _same(self, key: str, kept: Mapping[str, str], sums: Mapping[str, str]) -> None:
        if kept != sums:
            raise other_content(key, f"compare it with {self.remote.text()}")
        check_sums(self._found(key, kept), kept, self._named(key), _PUSH)

    def _found(self, key: str, sums: Mapping[str, str]) -> dict[str, str]:
        """Read every byte kept under a key; absent objects are left out."""
        hashes = ((name, self._hash(f"{key}/{name}")) for name in sums)
        return {name: sha256 for name, sha256 in hashes if sha256 is not None}

    def _kept(self, key: str) -> dict[str, str] | None:
        """Return the sums of a key, None where it is not kept."""
        data = self._read(key + SUMS, lambda response: response.read())
        if data is None:
            return None
        return read_sums(data.decode("utf-8", errors="replace"), self._named(key), sealed=True)

    def _send(self, name: str, file: Path, sha256: str, there: Mapping[str, Stored]) -> None:
        """Send a file unless it is there, and read it back."""
        size = there[name].size_bytes if name in there else None
        if size == file.stat().st_size and self._hash(name) == sha256:
            return
        self._upload(name, file)
        if self._hash(name) != sha256:
            raise StoreError(
                f"The store does not give {name} back as it was sent.",
                cause="the file changed meanwhile, or the server's disk or the network is failing.",
                remedy="give the same command again; look at the server's disks if it stays so.",
            )

    def _upload(self, name: str, file: Path) -> None:
        self._client.fput_object(
            self.remote.bucket, self._object(name), str(file), part_size=PART_BYTES
        )

    def _write(self, name: str, data: bytes) -> None:
        self._client.put_object(self.remote.bucket, self._object(name), BytesIO(data), len(data))

    def _fetch(self, name: str, target: Path) -> str | None:
        """Write an object to a file; return its sha256, None where it is absent."""
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._read(name, lambda response: _written(response, target))

    def _hash(self, name: str) -> str | None:
        """Return the sha256 of an object's bytes, None where it is absent."""
        return self._read(name, lambda response: _written(response, _NOWHERE))

    def _read(self, name: str, take: Callable[[BaseHTTPResponse], _T]) -> _T | None:
        """Take an object's bytes; a connection that breaks in the middle is tried again."""
        for tries_left in reversed(range(TRIES)):
            response = self._get(name)
            if response is None:
                return None
            try:
                with _closing(response):
                    return take(response)
            except HTTPError:
                if not tries_left:
                    raise
        raise AssertionError

    def _get(self, name: str) -> BaseHTTPResponse | None:
        """Open an object, None where it is absent."""
        try:
            return self._client.get_object(self.remote.bucket, self._object(name))
        except S3Error as error:
            if error.code in _ABSENT:
                return None
            raise

    def _listed(self, prefix: str) -> dict[str, Stored]:
        """Return every object below our prefix whose name begins so."""
        root = self._object("")
        listed = self._client.list_objects(self.remote.bucket, self._object(prefix), recursive=True)
        return {
            str(one.object_name).removeprefix(root): Stored(
                one.size or 0, one.last_modified.timestamp() if one.last_modified else 0.0
            )
            for one in listed
        }

    def _object(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def _named(self, key: str) -> str:
        return f"{key} in the store {self.remote.text()}"

    @contextmanager
    def _telling(self, key: str) -> Iterator[None]:
        """Turn what the client raises into what a person can act on."""
        try:
            yield
        except HTTPError as error:
            raise unreachable(self.remote, type(error).__name__) from error
        except S3Error as error:  # its other fields may hold what we signed
            code = error.code or "no code"
            raise refused(code, error.message or "", self.remote, key) from error
        except ServerError as error:
            raise refused(f"status {error.status_code}", "", self.remote, key) from error
        except MinioException as error:
            raise refused(type(error).__name__, "no answer of S3's", self.remote, key) from error


def _pool() -> PoolManager:
    """Return connections that give up soon and try again only what may be gone a moment later."""
    return PoolManager(
        timeout=Timeout(connect=CONNECT_S, read=ANSWER_S),
        maxsize=10,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE")
        or os.environ.get("SSL_CERT_FILE")
        or certifi.where(),
        retries=Retry(
            total=TRIES, backoff_factor=0.2, status_forcelist=_OUTSIDE, raise_on_status=False
        ),
    )


@contextmanager
def _closing(response: BaseHTTPResponse) -> Iterator[None]:
    try:
        yield
    finally:
        response.close()
        response.release_conn()


def _written(response: BaseHTTPResponse, target: Path, algorithm: str = "sha256") -> str:
    """Write what comes to a file; return its hash."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with target.open("wb") as file:
        for chunk in response.stream(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _here(folder: Path, sums: Mapping[str, str]) -> dict[str, str]:
    """Return what a folder holds of the files that should be sent."""
    return {name: sha256_file(folder / name) for name in sums if (folder / name).is_file()}
