"""What can go wrong with a store: which failures pass by themselves, and what to tell a person.

Every exception that a filesystem raises is reduced to a `Failure`: `passing` (throttling, dropped
or slow connections: worth another attempt), `missing`, `changed` (overwritten while it was read),
`exists` (a create-only write lost) or `refused` (credentials, buckets, permissions, full disks: an
attempt more changes nothing).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from mint_stream.config import without_queries

Kind = Literal["passing", "missing", "changed", "exists", "refused"]

COMMITTED_IS_INTACT = "What was committed is intact; the same command continues from there"


class StorageError(OSError):
    """A store cannot do what was asked. The message names the object, the cause and the remedy."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_queries(message))


class StoreUnreachable(StorageError):
    """The store did not answer, or not well, until the bound on retries."""


class ObjectMissing(StorageError):
    """The object is not there (or not any more)."""


class ObjectChanged(StorageError):
    """The object was overwritten while it was being read, or since it was listed."""


@dataclass(frozen=True)
class Failure:
    """One exception, understood."""

    kind: Kind
    reason: str
    remedy: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", without_queries(self.reason))


_CREDENTIALS = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that AWS_ENDPOINT_URL "
    "is the store they belong to"
)
_REGION = "set AWS_REGION to the bucket's region, or AWS_ENDPOINT_URL if the store is not AWS"
_BUCKET = (
    "check the bucket's name, and that AWS_ENDPOINT_URL and AWS_REGION point to where it lives"
)
_PASSING_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "RequestTimeout",
    "InternalError",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
}
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_PASSING_ERRNO = {
    errno.EAGAIN,
    errno.EINTR,
    errno.ETIMEDOUT,
    errno.EBUSY,
    errno.ESTALE,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}
# By name, because which of these packages is installed depends on the store.
_PASSING_TYPES = {
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "HTTPClientError",
    "ResponseStreamingError",
    "IncompleteReadError",
    "IncompleteRead",
    "ResponseParserError",
    "ClientPayloadError",
    "ClientConnectionError",
    "ServerDisconnectedError",
    "FSTimeoutError",
}
_REFUSED_CODES = {
    "NoSuchBucket": _BUCKET,
    "InvalidBucketName": _BUCKET,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": "set this machine's clock",
    "ExpiredToken": "the temporary credentials have expired: fetch new ones",
    "NotImplemented": "this store lacks an operation that is needed (If-None-Match on PUT)",
    "EntityTooLarge": "write smaller objects: choose a smaller --unit-size",
}
_REFUSED_TYPES = {
    "ParamValidationError": ("the address is not valid", _BUCKET),
    "NoCredentialsError": (
        "no credentials were found",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; a public bucket is read "
        "with --anonymous",
    ),
    "ProfileNotFound": ("the profile is not configured", "check AWS_PROFILE"),
    "NoRegionError": ("no region is set", _REGION),
    "SSLError": (
        "the TLS handshake failed",
        "check that AWS_ENDPOINT_URL has the right scheme, and AWS_CA_BUNDLE for own certificates",
    ),
}


def understand(error: BaseException) -> Failure:
    """The `Failure` that `error` (with the causes it was raised from) stands for."""
    chain = list(_causes(error))
    if any(type(cause).__name__ == "FileExpired" for cause in chain):
        return Failure("changed", "it was overwritten while it was read", "read it again")
    for cause in chain:
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return _understand_response(response)
    for cause in chain:
        name = type(cause).__name__
        if name in _REFUSED_TYPES:
            reason, remedy = _REFUSED_TYPES[name]
            return Failure("refused", reason, remedy)
        if _is_connection_trouble(cause):
            reason = str(cause).strip() or name
            return Failure("passing", reason, f"check the network and the endpoint{_endpoint()}")
    for cause in chain:  # a driver may call whatever a web server refuses a missing file
        status = getattr(cause, "status", None)
        if isinstance(status, int) and status >= 400 and status not in (404, 410, 412):
            return _understand_status(status)
    if isinstance(error, FileExistsError):
        return Failure("exists", "the name is taken", "choose another output")
    if isinstance(error, FileNotFoundError):
        return Failure("missing", "there is no such object", "check the name")
    return _understand_os(error)


_RAISED: dict[Kind, type[StorageError]] = {
    "passing": StoreUnreachable,
    "missing": ObjectMissing,
    "changed": ObjectChanged,
}


def raised(error: BaseException, doing: str, uri: str, attempts: int, ending: str) -> StorageError:
    """`error` as the `StorageError` to raise: while `doing` (`read`, `list`) the object `uri`.

    `ending` is added where all `attempts` failed in a way that may pass.
    """
    if isinstance(error, StorageError):
        return error
    failure = understand(error)
    kind = _RAISED.get(failure.kind, StorageError)
    tried = f" (gave up after {attempts} attempts)" if attempts > 1 else ""
    ending = f". {ending}" if ending and failure.kind == "passing" else ""
    return kind(f"cannot {doing} {uri}: {failure.reason}{tried}; {failure.remedy}{ending}")


def _understand_response(response: dict) -> Failure:  # type: ignore[type-arg]
    code = str(response["Error"].get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = str(response["Error"].get("Message", "")).strip()
    reason = ": ".join(dict.fromkeys(part for part in (code, text) if part)) or f"HTTP {status}"
    if code in _REFUSED_CODES:
        return Failure("refused", reason, _REFUSED_CODES[code])
    if code == "PreconditionFailed" or status == 412:
        return Failure("exists", "the name is taken", "choose another output")
    if code in _PASSING_CODES or status in _PASSING_STATUS:
        return Failure("passing", reason, f"the store is overloaded or ill{_endpoint()}")
    if status == 404:
        return Failure("missing", "there is no such object", "check the name")
    if status in (401, 403):
        if code in ("403", "401"):
            reason = "HTTP 403: access denied"
        return Failure("refused", reason, _CREDENTIALS)
    return Failure("refused", reason, _BUCKET)


def _understand_status(status: int) -> Failure:
    if status in _PASSING_STATUS:
        return Failure("passing", f"HTTP {status}", "the store is overloaded or ill")
    remedy = "check the address; a signed one may have expired, and ~/.netrc may lack the host"
    return Failure("refused", f"HTTP {status}", remedy)


def _understand_os(error: BaseException) -> Failure:
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error).strip() or type(error).__name__
    if number in _PASSING_ERRNO:
        return Failure("passing", reason, "check the disk or the network mount")
    if isinstance(error, PermissionError) or number == errno.EROFS:
        return Failure("refused", reason, "check who may read and write there")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Failure("refused", reason, f"make room. {COMMITTED_IS_INTACT}")
    if isinstance(error, NotADirectoryError):
        return Failure("refused", reason, "check the path: a file is where a folder should be")
    if isinstance(error, IsADirectoryError):
        return Failure("refused", reason, "check the path: a folder is where a file should be")
    if isinstance(error, ValueError) and "endpoint" in reason.lower():
        return Failure("refused", reason, "check AWS_ENDPOINT_URL: it needs http:// or https://")
    status = getattr(error, "code", None)  # GCS
    if str(status).isdecimal() and int(str(status)) in _PASSING_STATUS:
        return Failure("passing", reason, "the store is overloaded or ill")
    return Failure("refused", reason, "check the address and the credentials of the store")


def _is_connection_trouble(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | asyncio.TimeoutError):
        return True
    return any(base.__name__ in _PASSING_TYPES for base in type(error).__mro__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _endpoint() -> str:
    """` (AWS_ENDPOINT_URL is ...)` where one is set; user information in it is never shown."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return ""
    parts = urlsplit(url)
    return f" (AWS_ENDPOINT_URL is {parts.scheme}://{parts.netloc.rpartition('@')[2]})"
