"""Check URIs of object storage, and the names of objects below them."""

from __future__ import annotations

import os
import re

from contracts.errors import InputError

SCHEMES = ("s3", "gs")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PART = re.compile(r"[\w=+,!.-]+", re.ASCII)


def is_uri(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URI. `check_uri` decides whether the URI is accepted."""
    return "://" in str(path)


def check_uri(uri: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key of `scheme://bucket/key` (no slash at the end).

    Raises:
        InputError: the scheme is not supported; the URI holds credentials or a query (which the message does not
            show); it has no bucket or no key; or a part of the key is empty, is '..', or has characters other than
            letters, digits and `_ . - = + , !`.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.rstrip("/").partition("/")
    if any(mark in rest for mark in "@?#") or ":" in bucket:
        raise InputError(
            f"a {scheme[:8]}:// URI holds credentials, a port or a query, and is not shown; write it as "
            "s3://bucket/folder, credentials go into the environment and another service into AWS_ENDPOINT_URL"
        )
    if scheme not in SCHEMES:
        raise InputError(
            f"{uri}: scheme {scheme!r} is not supported; give a path, or a URI of {' or '.join(SCHEMES)} "
            "such as s3://bucket/folder"
        )
    if not _BUCKET.fullmatch(bucket):
        raise InputError(f"{uri}: {bucket!r} is no bucket name; write it as {scheme}://bucket/folder")
    if not key:
        raise InputError(f"{uri}: names a whole bucket; name a folder in it, such as {scheme}://{bucket}/folder")
    check_name(key, uri)
    return scheme, bucket, key


def check_name(name: str, where: str) -> None:
    """Check that a relative name from a listing, a manifest or a URI stays below its folder.

    Raises:
        InputError: the name is absolute, leads out of the folder, or has other characters than `check_uri` allows.
    """
    for part in name.split("/"):
        if not _PART.fullmatch(part) or part in (".", ".."):
            raise InputError(
                f"{where}: holds the name {name[:200]!r}, whose part {part[:80]!r} is refused (letters, digits and "
                "_ . - = + , ! only, no '..'); rename it"
            )
