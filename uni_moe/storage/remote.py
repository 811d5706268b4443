"""The remote of a workspace: one entry of DVC's config, which DVC's data and our store share.

`url` there is the place plus `/dvc`; our store lies beside it under `/store`. Only secrets of this
machine stand elsewhere: see `uni_moe.storage.credentials`.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from uni_moe.artifacts import write_text
from uni_moe.errors import ConfigError, StoreError, UnreachableError
from uni_moe.storage.blobs import BlobStore, LocalFolder, room
from uni_moe.storage.credentials import LOCAL_CONFIG, Credentials, find_credentials
from uni_moe.storage.objects import Files, Objects

NAME, DEFAULT_REGION = "uni-moe", "us-east-1"
_SECTION = f"'remote \"{NAME}\"'"
DATA, STORE, MARK = "dvc", "store", "uni-moe-remote"
_CREDENTIALS = re.compile(":.*@")  # a name and a secret before a host
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Remote:
    """Where data and models are copied to: an S3 bucket or a folder."""

    url: str  # s3://bucket/prefix, or the full path of a folder
    endpoint: str | None = None  # of S3; None is Amazon's own
    region: str = DEFAULT_REGION

    @property
    def is_s3(self) -> bool:
        """Whether it is a bucket."""
        return self.url.startswith("s3://")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return urlsplit(self.url).netloc

    def prefix(self, part: str) -> str:
        """Return where a part of the remote begins in the bucket."""
        return f"{urlsplit(self.url).path.strip('/')}/{part}".lstrip("/")

    def for_dvc(self) -> dict[str, str]:
        """Return the options of DVC's remote; none is a secret.

        `verify` lets DVC hash what it fetches; by default it believes a remote.
        """
        options = {"url": f"{self.url}/{DATA}", "verify": "true"}
        if self.is_s3:
            options["region"] = self.region
        if self.endpoint is not None:
            options["endpointurl"] = self.endpoint
        return options

    def text(self) -> str:
        """Return the place in words."""
        return self.url if self.endpoint is None else f"{self.url} at {self.endpoint}"


def parse_remote(url: str, endpoint: str | None, region: str, here: Path) -> Remote:
    """Return the remote that a person names; a folder is read as seen from `here`.

    Raises:
        ConfigError: a URL has another form, or holds a secret; the secret is not repeated.
    """
    for name, text in (("URL", url), ("--endpoint", endpoint or "")):
        _check_secret(f"The {name}", text)
    if url.startswith("s3://"):
        return _bucket(url.rstrip("/"), endpoint, region)
    if "://" in url or endpoint is not None:
        raise ConfigError(
            f"{url} is no remote that we know.",
            cause="a remote is a bucket, or the path of a folder, which has no endpoint.",
            remedy="write `uni-moe remote set s3://bucket/prefix --endpoint http://host:9000`, or "
            "`uni-moe remote set /mnt/store`.",
        )
    return Remote(str((here / url).resolve()))


def read_remote(root: Path) -> Remote | None:
    """Return a workspace's remote, None where none is set.

    Raises:
        ConfigError: DVC's config cannot be read, another hand wrote our entry, or put a secret
            into an address; it is not repeated.
    """
    options = _options(root, ".dvc/config") | _places(_options(root, LOCAL_CONFIG))
    url = options.get("url")
    if url is None:
        return None
    for name in ("url", "endpointurl"):
        _check_secret(f"{name} of the remote {NAME!r} in .dvc", options.get(name, ""))
    if not url.endswith(f"/{DATA}"):
        raise ConfigError(
            f"The remote {NAME!r} in .dvc/config is not as `uni-moe remote set` writes it.",
            cause=f"its url does not end in /{DATA}, so our store has no place beside it.",
            remedy="give `uni-moe remote set URL` again.",
        )
    place = url.removesuffix(f"/{DATA}")
    if place.startswith("s3://"):
        region = options.get("region", DEFAULT_REGION)
        return Remote(place, options.get("endpointurl"), region)
    return Remote(str((root / ".dvc" / place).resolve()))  # DVC writes it relative to its config


def make_folder(remote: Remote) -> None:
    """Make the folder of a remote that is one, and mark it, so that it is told from its absence.

    Raises:
        StoreError: it cannot be made, or the disk has no room.
    """
    mark = Path(remote.url) / MARK
    try:
        if not mark.is_file():
            with room(mark):
                write_text(
                    mark, "This folder is a remote of uni-moe: `uni-moe remote set` made it.\n"
                )
    except OSError as error:
        raise StoreError(
            f"The folder {remote.url} cannot be made a remote: {error.strerror}.",
            cause="the disk is not there, or we may not write to it.",
            remedy="mount the disk or name another folder; then give `uni-moe remote set` again.",
        ) from error


def check_folder(remote: Remote) -> None:
    """Hold that the folder of a remote that is one is there: a disk may not be mounted.

    Raises:
        UnreachableError: it is not there, or `uni-moe remote set` never marked it.
    """
    if not remote.is_s3 and not (Path(remote.url) / MARK).is_file():
        raise UnreachableError(
            f"The remote {remote.url} is not there.",
            cause=f"its disk is not mounted, or it was moved: there is no {MARK} in it.",
            remedy="mount it, then give the same command again; or set it anew with "
            f"`uni-moe remote set {shlex.quote(remote.url)}`.",
        )


def credentials_of(root: Path, environ: Mapping[str, str] = os.environ) -> Credentials:
    """Return the credentials for a workspace's bucket.

    Raises:
        StoreError: there are none, or only half of them.
    """
    return find_credentials(_options(root, LOCAL_CONFIG), environ)


def open_store(root: Path, remote: Remote) -> BlobStore:
    """Return a workspace's remote store. Nothing is asked of it yet.

    Raises:
        StoreError: it is a bucket, and there are no credentials.
    """
    if not remote.is_s3:
        return LocalFolder(Path(remote.url) / STORE)
    from uni_moe.storage.s3 import S3Bucket

    return S3Bucket(remote, credentials_of(root))


def objects_of(root: Path, remote: Remote, part: str) -> Objects:
    """Return the objects of one part of a workspace's remote. Nothing is asked of it yet.

    Raises:
        StoreError: it is a bucket, and there are no credentials.
    """
    if not remote.is_s3:
        return Files(Path(remote.url) / part)
    from uni_moe.storage.s3 import S3Bucket

    return S3Bucket(remote, credentials_of(root), part)


def _check_secret(what: str, address: str) -> None:
    """Refuse an address with a secret in it, without repeating it.

    A secret may hold any sign, a slash among them, and the scheme before it may be forgotten.
    """
    _, scheme, rest = address.rpartition("://")
    is_address = bool(scheme) and ("@" in rest.partition("/")[0] or "#" in rest)
    if is_address or _CREDENTIALS.search(rest) or "?" in address:
        raise ConfigError(
            f"{what} holds credentials or a query.",
            cause="an address is printed, and stands in a file that others read.",
            remedy="leave them out; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead.",
        )


def check_told(root: Path, remote: Remote) -> None:
    """Hold that a workspace's remote is the one that was just written to .dvc/config.

    Raises:
        ConfigError: values of this machine's own config say another one.
    """
    if read_remote(root) != remote:
        own = ", ".join(_places(_options(root, LOCAL_CONFIG)))
        raise ConfigError(
            f"The remote {remote.text()} was written to .dvc/config, but it is not in force.",
            cause=f"{LOCAL_CONFIG} says something else, and wins: {own}.",
            remedy=f"take it out there, say with `dvc remote modify --local --unset {NAME} url`.",
        )


def _bucket(url: str, endpoint: str | None, region: str) -> Remote:
    parts = urlsplit(endpoint or "https://s3.amazonaws.com")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ConfigError(
            f"{endpoint} is no endpoint.",
            cause="it is the address of a server alone.",
            remedy="write it like http://host:9000.",
        )
    if not _BUCKET.fullmatch(urlsplit(url).netloc):
        raise ConfigError(
            f"{url} names no bucket.",
            cause="a bucket has 3 to 63 small letters, digits, dots and hyphens.",
            remedy="write it like s3://bucket/prefix.",
        )
    return Remote(url, endpoint and endpoint.rstrip("/"), region)


def _places(options: Mapping[str, str]) -> dict[str, str]:
    return {name: options[name] for name in ("url", "endpointurl", "region") if name in options}


def _options(root: Path, file: str) -> dict[str, str]:
    """Return what one of DVC's configs says of our remote."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(root / file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{root / file} cannot be read.",
            cause=f"it is no config of DVC's ({type(error).__name__}).",  # its lines may be secret
            remedy="mend it, or remove it and give `uni-moe remote set URL` again.",
        ) from None
    return {k: _plain(v) for k, v in parser[_SECTION].items()} if _SECTION in parser else {}


def _plain(value: str) -> str:
    """Take off the quotes that DVC puts around a value with a comma or a hash in it."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
