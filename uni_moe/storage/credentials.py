"""Where the secrets of a store come from: DVC's local config or the environment, nowhere else.

DVC prefers its local config, so ours does too: both then speak with one voice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uni_moe.errors import StoreError

_PAIRS = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN"),
)
_LOCAL = ("access_key_id", "secret_access_key", "session_token")
LOCAL_CONFIG = ".dvc/config.local"


@dataclass(frozen=True)
class Credentials:
    """Who we are to a store. Nothing of it is ever printed but where it comes from."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)
    origin: str

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process of DVC's gets to know them."""
        told = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return told | ({"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {})


def find_credentials(local: Mapping[str, str], environ: Mapping[str, str]) -> Credentials:
    """Return the credentials of DVC's local config for our remote, else of the environment.

    Raises:
        StoreError: there are none, or only half of them.
    """
    places = [(local, _LOCAL, LOCAL_CONFIG), *((environ, names, "") for names in _PAIRS)]
    for known, (access, secret, token), place in places:
        said = [name for name in (access, secret) if known.get(name)]
        if len(said) == 1:
            raise StoreError(
                f"The store's credentials are only half there: {said[0]} is set alone.",
                cause=f"{access} and {secret} belong together.",
                remedy=f"set both, in {place or 'the environment'}.",
            )
        if said:
            origin = place or f"{access} and {secret} in the environment"
            return Credentials(known[access], known[secret], known.get(token) or None, origin)
    raise StoreError(
        "There are no credentials for the store.",
        cause=f"neither {LOCAL_CONFIG} nor the environment says who we are.",
        remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or keep them on this machine with "
        "`dvc remote modify --local uni-moe access_key_id …` and `… secret_access_key …`.",
    )
