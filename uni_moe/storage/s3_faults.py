"""What a bucket's server says when it cannot serve, as errors with cause and remedy."""

from __future__ import annotations

import shlex

from uni_moe.errors import StoreError, UnreachableError
from uni_moe.storage.remote import Remote

_AGAIN = "give the same command again; it sends only what is not there yet."
_REFUSED = (
    *("SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "InvalidToken"),
    *("ExpiredToken", "InvalidTokenId", "Unauthorized", "AuthorizationHeaderMalformed"),
)
_FULL = (
    *("XMinioStorageFull", "StorageFull", "InsufficientStorage", "QuotaExceeded", "status 507"),
    *("XMinioAdminBucketQuotaExceeded", "XMinioQuotaExceeded"),
)
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired")


def unreachable(remote: Remote, fault: str) -> UnreachableError:
    """Return the error of a server that does not answer, or stops in the middle."""
    return UnreachableError(
        f"The store {remote.text()} cannot be reached.",
        cause=f"the server is down, busy, or behind another address ({fault}).",
        remedy=f"start it or look at `uni-moe remote show`; then {_AGAIN}",
    )


def refused(code: str, said: str, remote: Remote, key: str) -> StoreError:
    """Return the error of a server that answers by a code of S3's, and what it says with it."""
    if code in _REFUSED:
        return StoreError(
            f"The store {remote.text()} refuses our credentials: {code}.",
            cause="the access key or its secret is wrong or expired, or may not use this bucket.",
            remedy="correct them where `uni-moe remote show` says that they come from; then "
            f"{_AGAIN}",
        )
    if code == "NoSuchBucket":
        return StoreError(
            f"There is no bucket {remote.bucket} at {remote.endpoint or 'Amazon S3'}.",
            cause="it was never made, was removed, or the name is misspelt.",
            remedy=f"make it with `uni-moe remote set {_command(remote)} --make-bucket`.",
        )
    if code in _FULL:
        return StoreError(
            f"The store {remote.text()} has no room: {code}.",
            cause="its disk or the bucket's quota is full.",
            remedy=f"free some room there; then {_AGAIN}",
        )
    if code in _SKEWED:
        return StoreError(
            f"The store {remote.text()} refuses our clock: {code}.",
            cause="the clocks of the two machines are more than 15 minutes apart.",
            remedy=f"set the clock that is wrong; then {_AGAIN}",
        )
    place, words = f" at {key}" if key else "", f" ({said})" if said else ""
    return StoreError(
        f"The store {remote.text()} failed{place}: {code}{words}.",
        cause="the server answers so; its own log says more.",
        remedy=f"look at the server; then {_AGAIN}",
    )


def _command(remote: Remote) -> str:
    words = [remote.url, *(["--endpoint", remote.endpoint] if remote.endpoint else [])]
    return shlex.join(words)
