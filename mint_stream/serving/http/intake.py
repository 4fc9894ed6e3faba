"""From a request's body to decoded images, with every limit checked before anything is decoded."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import numpy as np
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mint_stream.input.images import ImageError, TooManyPixels, decode
from mint_stream.serving.http.problems import Problem
from mint_stream.serving.settings import Settings

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
_RAW_TYPES = {*IMAGE_TYPES, "image/jpg", "application/octet-stream", ""}
_FIELDS = ("camera", "top_k", "frame")
_CHUNK = 2**20
_MB = 2**20


@dataclass(frozen=True)
class Upload:
    """A request's images, still encoded; one that is too large is the problem in its place."""

    images: list[bytes | Problem]
    fields: dict[str, str] = field(default_factory=dict)
    """What a multipart body says besides: camera, top_k, frame."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded image, upright."""

    rgb_HW3: np.ndarray
    width: int
    """Of the stored image after EXIF rotation."""
    height: int
    digest: str
    """Hash of the file: the frame's name where none is given."""
    seconds: float
    """That decoding took."""


async def receive(request: Request, settings: Settings, max_images: int) -> Upload:
    """The images in a raw or multipart body. Raises `Problem`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_body_mb * _MB:
        raise _body_too_large(f"it has {int(declared):,} bytes", settings)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(request, settings, max_images)
    if kind not in _RAW_TYPES:
        raise Problem(
            "unsupported-type",
            f"the Content-Type is {kind[:80]!r}",
            f"Send the image itself as {', '.join(IMAGE_TYPES)}, or images as multipart/form-data "
            "(`curl -F image=@frame.jpg`).",
        )
    data = b"".join([chunk async for chunk in _limited(request, settings)])
    if not data:
        raise Problem(
            "no-image", "the body is empty (0 bytes)", "Send the bytes of an image as the body."
        )
    return Upload([_size_checked(data, settings)])


async def _limited(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    """The body in pieces, no further than the limit."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > settings.max_body_mb * _MB:
            raise _body_too_large("more than that arrived", settings)
        yield chunk


async def _multipart(request: Request, settings: Settings, max_images: int) -> Upload:
    parser = _Parser(
        request.headers,
        _limited(request, settings),
        max_files=max_images,
        max_fields=16,
        max_part_size=4096,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if parser.has_too_many_files:
            raise Problem(
                "too-many-images",
                f"there are more than {max_images}, the limit of {request.url.path}",
                "Send fewer in one request; /v1/labels:batch takes "
                f"{settings.max_images_batch} at a time.",
            ) from None
        raise Problem(
            "bad-request",
            f"the multipart body cannot be read: {error.message[:200]}",
            "Let an HTTP client build it, such as `curl -F image=@frame.jpg`.",
        ) from None
    try:
        return await _upload(form, settings)
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Knows why it gave up."""

    @property
    def has_too_many_files(self) -> bool:
        return self._current_files > self.max_files


async def _upload(form: FormData, settings: Settings) -> Upload:
    images: list[bytes | Problem] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            images.append(await _read_part(value, settings))
        elif name in _FIELDS:
            fields[name] = value
        else:
            raise Problem(
                "bad-parameter",
                f"the form has a field {name[:80]!r}",
                f"Send images as files; the fields are {', '.join(_FIELDS)}.",
            )
    if not images:
        raise Problem(
            "no-image", "no part of the form is a file", "Send each as `-F image=@frame.jpg`."
        )
    return Upload(images, fields)


async def _read_part(part: UploadFile, settings: Settings) -> bytes | Problem:
    pieces, size = [], 0
    while piece := await part.read(_CHUNK):
        size += len(piece)
        if size > settings.max_image_mb * _MB:
            return _image_too_large(part.size or size, settings)
        pieces.append(piece)
    return b"".join(pieces)


def decode_upload(data: bytes, settings: Settings, min_short_side: int) -> Picture:
    """Decode one image; size, kind and pixel count are checked first. Raises `Problem`."""
    started = time.perf_counter()
    if not data:
        raise Problem("no-image", "the image is empty (0 bytes)", "Send the file's bytes.")
    if not _is_known(data):
        raise Problem(
            "unsupported-type",
            f"the content begins with the bytes {data[:8].hex(' ')}, which is none of them",
            "Convert the image to JPEG, PNG or WebP. Addresses are not fetched: send the file.",
        )
    max_pixels = int(settings.max_megapixels * 1e6)
    try:
        image = decode(data, max_pixels=max_pixels, min_short_side=min_short_side)
    except TooManyPixels as error:
        raise Problem(
            "too-many-pixels",
            str(error),
            f"Scale it down to at most {settings.max_megapixels:g} million pixels.",
        ) from None
    except ImageError as error:
        raise Problem(
            "image-unreadable",
            str(error),
            "Check the file with another viewer, and send it again whole.",
        ) from None
    return Picture(
        rgb_HW3=image.rgb_HW3,
        width=image.width,
        height=image.height,
        digest="sha256:" + hashlib.sha256(data).hexdigest()[:32],
        seconds=time.perf_counter() - started,
    )


def _is_known(data: bytes) -> bool:
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (
        data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    )


def _size_checked(data: bytes, settings: Settings) -> bytes | Problem:
    if len(data) > settings.max_image_mb * _MB:
        return _image_too_large(len(data), settings)
    return data


def _image_too_large(size: int, settings: Settings) -> Problem:
    return Problem(
        "image-too-large",
        f"it has {size:,} bytes; the limit is {settings.max_image_mb:g} MB",
        "Scale it down: the model sees a few hundred pixels a side.",
    )


def _body_too_large(what: str, settings: Settings) -> Problem:
    return Problem(
        "body-too-large",
        f"{what}; the limit is {settings.max_body_mb:g} MB",
        "Send fewer images in one request, or scale them down.",
    )
