"""What a replica does with a request, without HTTP and without Serve."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

import mint_stream
from mint_stream.clip.class_list import ClassList
from mint_stream.config import MethodConfig
from mint_stream.serving.answers import Answers, internal
from mint_stream.serving.http.intake import Upload, decode_upload
from mint_stream.serving.http.messages import Bank, Info, Label, Labels, Limits, Result
from mint_stream.serving.http.problems import Problem
from mint_stream.serving.questions import Identity, Outcome, Question, message
from mint_stream.serving.settings import Settings

_DECODERS = min(4, os.cpu_count() or 1)
_TOGETHER = 4
"""Images of one request, at most, that a thread decodes before it hands them on."""


@dataclass(frozen=True, kw_only=True)
class ServicePlan:
    """What every replica is given: settings, and what was found out when they were checked."""

    settings: Settings
    classes: ClassList
    model_hash: str
    width: int
    """Of the image tower, and so of the bank."""

    @property
    def method(self) -> MethodConfig:
        """The preset, fitted to the class list."""
        return self.settings.method.fitted(len(self.classes.names), self.width)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says besides its images."""

    camera: str | None = None
    top_k: int = 5
    frame: str | None = None


class Service:
    """Labels uploads.

    Args:
        plan: settings and what follows from them.
        answers: the labeler, for what it says of itself; images reach it through `batch`.
        batch: hands one question to the labeler, together with others, and gives its outcome.
        min_short_side: images are reduced to no less than this while they are read, as the
            pipeline does.
    """

    def __init__(
        self,
        plan: ServicePlan,
        answers: Answers,
        batch: Callable[[Question], Awaitable[Outcome]],
        *,
        min_short_side: int,
    ) -> None:
        self.plan, self.settings, self.answers = plan, plan.settings, answers
        self._batch, self._min_short_side = batch, min_short_side
        self._held = 0
        self._name = secrets.token_hex(4)
        self._decoders = ThreadPoolExecutor(
            _DECODERS,
            thread_name_prefix="decode",
            # A team of torch threads for each of them would only get in the way.
            initializer=torch.set_num_threads,
            initargs=(1,),
        )
        self._identity = Identity(
            preset=self.settings.method.name, model=plan.model_hash, classes=plan.classes.hash
        )

    @property
    def held(self) -> int:
        """Images between their arrival and their answer."""
        return self._held

    async def label_one(self, upload: Upload, asked: Asked, started: float) -> Label:
        """The answer for the only image. Raises `Problem`."""
        with _Admission(self, 1):
            [outcome] = await self._label(upload.images, asked, started)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def label_many(
        self, upload: Upload, asked: Asked, started: float, request_id: str
    ) -> Labels:
        """The answers for all images. Raises `Problem` only for the request as a whole."""
        images = upload.images
        together = min(_TOGETHER, math.ceil(len(images) / _DECODERS))
        with _Admission(self, len(images)):
            groups = await asyncio.gather(
                *(
                    self._label(images[first : first + together], asked, started)
                    for first in range(0, len(images), together)
                )
            )
        results = [
            Result(index=index, problem=outcome.details(request_id))
            if isinstance(outcome, Problem)
            else Result.model_construct(index=index, label=outcome, problem=None)
            for index, outcome in enumerate(chain.from_iterable(groups))
        ]
        rejected = sum(result.problem is not None for result in results)
        return Labels.model_construct(
            results=results,
            labelled=len(results) - rejected,
            rejected=rejected,
            ms=round((time.perf_counter() - started) * 1e3, 3),
        )

    def admit(self, images: int) -> None:
        """Count images in. Raises `Problem` where more wait than should."""
        if self._held + images > self.settings.max_waiting:
            raise Problem(
                "busy",
                f"{self._held} images wait here; the limit is {self.settings.max_waiting}",
                "Send it again after Retry-After; for more throughput raise the replicas.",
            )
        self._held += images

    def dismiss(self, images: int) -> None:
        """Count images out."""
        self._held -= images

    def ready(self) -> None:
        """Raise `Problem` unless images can be answered."""
        if not self.answers.ready:
            why = self.answers.bank.last_error or "no sound checkpoint was found yet"
            raise Problem(
                "bank-missing",
                f"the bank has not been read yet: {why}",
                "Wait for the pipeline's first checkpoint, or correct `bank`.",
            )

    def info(self) -> Info:
        """What answers here."""
        settings, plan, bank = self.settings, self.plan, self.answers.bank
        return Info(
            version=mint_stream.__version__,
            model=Path(settings.model).name if settings.clip.folder else settings.model,
            model_hash=plan.model_hash,
            classes=list(plan.classes.names),
            classes_hash=plan.classes.hash,
            preset=settings.method.name,
            adapt=settings.adapt,
            bank_seq=bank.seq,
            bank_age_s=bank.age_s,
            replica=self._name,
            limits=Limits(
                body_mb=settings.max_body_mb,
                image_mb=settings.max_image_mb,
                megapixels=settings.max_megapixels,
                images=settings.max_images,
                images_batch=settings.max_images_batch,
            ),
        )

    def bank(self) -> Bank:
        """Statistics of the bank that answers now."""
        state = self.answers.bank
        return Bank(
            seq=state.seq,
            age_s=state.age_s,
            source=state.source,
            scopes=state.scopes,
            entries=self.settings.method.bank_size,
            used_entries=state.used_entries,
            retrievals=state.retrievals,
            takeovers=state.takeovers,
            last_error=state.last_error,
        )

    async def _label(
        self, images: Sequence[bytes | Problem], asked: Asked, started: float
    ) -> list[Label | Problem]:
        """The outcomes for a few images; a problem of one never reaches the others."""
        loop = asyncio.get_running_loop()
        questions = await loop.run_in_executor(self._decoders, self._questions, images, asked)
        return await asyncio.gather(*(self._answer(question, started) for question in questions))

    def _questions(
        self, images: Sequence[bytes | Problem], asked: Asked
    ) -> list[Question | Problem]:
        def question(image: bytes | Problem) -> Question | Problem:
            try:
                return image if isinstance(image, Problem) else self._question(image, asked)
            except Problem as problem:
                return problem
            except MemoryError:
                return internal()

        return [question(image) for image in images]

    async def _answer(self, question: Question | Problem, started: float) -> Label | Problem:
        if isinstance(question, Problem):
            return question
        outcome = await self._batch(question)
        if isinstance(outcome, Problem):
            return outcome
        return message(question, outcome, self._identity, (time.perf_counter() - started) * 1e3)

    def _question(self, image: bytes, asked: Asked) -> Question:
        picture = decode_upload(image, self.settings, self._min_short_side)
        return Question(
            frame=asked.frame or picture.digest,
            camera=asked.camera,
            top_k=asked.top_k,
            picture=picture,
            view_1CHW=self.answers.reader.view(picture.rgb_HW3),
        )


class _Admission:
    """Holds places among the images that wait; gives them back however the request ends."""

    def __init__(self, service: Service, images: int) -> None:
        self._service, self._images = service, images

    def __enter__(self) -> None:
        self._service.admit(self._images)

    def __exit__(self, *_: object) -> None:
        self._service.dismiss(self._images)
