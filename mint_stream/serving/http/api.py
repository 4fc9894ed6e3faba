"""The HTTP side: addresses, parameters, limits and errors, as one FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import mint_stream
from mint_stream.serving.http.arrivals import MOST_ARRIVING, Arrivals
from mint_stream.serving.http.description import DESCRIPTION_POLICY, describe
from mint_stream.serving.http.envelope import Envelope
from mint_stream.serving.http.intake import receive
from mint_stream.serving.http.messages import Bank, Health, Info, Label, Labels
from mint_stream.serving.http.openapi import body, complete_openapi
from mint_stream.serving.http.problems import Problem, documented
from mint_stream.serving.http.token import TOKEN_VARIABLE, Token
from mint_stream.serving.service import Asked, Service

PAGE = Path(__file__).parent / "serving.html"

_ABOUT = """Labels single images with CLIP and the Memory Prompt Bank of a running or finished
pipeline. Every answer carries the frozen model's beside it. Errors are problem details (RFC 9457)
with a remedy; every answer has an `X-Request-ID`."""

_BEARER = HTTPBearer(auto_error=False, description=f"The value of {TOKEN_VARIABLE}.")


class LabelQuery(BaseModel):
    """Parameters of a request; a multipart body may hold them as fields instead."""

    model_config = ConfigDict(extra="forbid")

    camera: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Which camera took it; chooses the bank where there is one for each.",
        examples=["north"],
    )
    top_k: int | None = Field(
        None, ge=1, le=1000, description="Labels in `topk`; 5 if not given.", examples=[3]
    )
    frame: str | None = Field(
        None,
        min_length=1,
        max_length=500,
        description="The image's name, given back; a hash of the file if not given.",
        examples=["2026-03-01T12:00:00Z/north.jpg"],
    )


def create_app(service: Service, *, gives_id: bool = True) -> ASGIApp:
    """The application around `service`; the token is taken from the environment now.

    gives_id: see `Envelope`.
    """
    app = FastAPI(
        title="mint_stream",
        version=mint_stream.__version__,
        description=_ABOUT,
        # FastAPI's pages would load scripts from elsewhere into the origin that asks for the token.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        responses=documented("internal", "busy"),
    )
    _handle_errors(app)
    _add_labelling(app, service)
    _add_about(app, service)
    _add_pages(app)
    complete_openapi(app)
    return Envelope(app, gives_id=gives_id)


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield


def _token_check() -> Callable[..., Awaitable[None]]:
    """A dependency that asks for the environment's token, if there is one."""
    token = Token()

    # Not a plain function: FastAPI would run that in another thread, for every request.
    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        given = credentials.credentials if credentials else ""
        if not token.admits(given):
            raise token.refusal(given)

    return check


def _add_labelling(app: FastAPI, service: Service) -> None:
    settings, guard = service.settings, [Depends(_token_check())]
    arrivals = Arrivals(MOST_ARRIVING, settings.body_timeout_s)
    problems = documented(
        *("unauthorized", "bad-request", "too-slow", "body-too-large", "image-too-large"),
        *("too-many-images", "unsupported-type", "bad-parameter", "no-image"),
        *("too-many-pixels", "image-unreadable", "internal", "busy", "bank-missing"),
        *("bank-unreachable", "too-slow-answer", "too-many-cameras"),
    )

    @app.post(
        "/v1/label",
        response_model=Label | Labels,
        responses=problems,
        openapi_extra=body(raw=True),
        dependencies=guard,
        tags=["label"],
    )
    async def label(request: Request, query: Annotated[LabelQuery, Query()]) -> Response:
        """Label one image (raw or multipart): a Label. Several (multipart): Labels.

        Nothing is fetched from an address; the image itself is sent.
        """

        async def work() -> Label | Labels:
            async with arrivals.place():
                upload = await receive(request, settings, settings.max_images)
            asked = _asked(query, upload.fields)
            request.state.images = len(upload.images)
            started = request.state.started
            if len(upload.images) == 1:
                return await service.label_one(upload, asked, started)
            return await service.label_many(upload, asked, started, request.state.request_id)

        return _json(await _in_time(work, settings.timeout_s))

    @app.post(
        "/v1/labels:batch",
        response_model=Labels,
        responses=problems,
        openapi_extra=body(raw=False),
        dependencies=guard,
        tags=["label"],
    )
    async def labels(request: Request, query: Annotated[LabelQuery, Query()]) -> Response:
        """Label many images (multipart). A bad one costs its own place alone."""

        async def work() -> Labels:
            async with arrivals.place():
                upload = await receive(request, settings, settings.max_images_batch)
            asked = _asked(query, upload.fields)
            request.state.images = len(upload.images)
            return await service.label_many(
                upload, asked, request.state.started, request.state.request_id
            )

        return _json(await _in_time(work, settings.timeout_s))


def _add_about(app: FastAPI, service: Service) -> None:
    guard = [Depends(_token_check())]

    @app.get("/v1/info", responses=documented("unauthorized"), dependencies=guard, tags=["about"])
    async def info() -> Info:
        """Model, classes, preset, bank and limits."""
        return service.info()

    @app.get("/v1/bank", responses=documented("unauthorized"), dependencies=guard, tags=["about"])
    async def bank() -> Bank:
        """Statistics of the bank that answers now."""
        return service.bank()

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["about"])
    async def healthz() -> Health:
        """Alive."""
        return Health()

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=documented("bank-missing"), tags=["about"])
    async def readyz() -> Health:
        """Ready: the model is loaded, and the bank that is to answer was read."""
        service.ready()
        return Health()


def _add_pages(app: FastAPI) -> None:
    content = PAGE.read_text()
    policy = (
        "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def description() -> HTMLResponse:
        return HTMLResponse(
            describe(app.openapi()), headers={"Content-Security-Policy": DESCRIPTION_POLICY}
        )


async def _in_time(
    work: Callable[[], Awaitable[Label | Labels]], timeout_s: float
) -> Label | Labels:
    try:
        async with asyncio.timeout(timeout_s):
            return await work()
    except TimeoutError:
        raise Problem(
            "too-slow-answer",
            f"there was no answer within {timeout_s:g} s",
            "Send it again after Retry-After; send fewer images at a time.",
        ) from None


def _asked(query: LabelQuery, fields: dict[str, str]) -> Asked:
    try:
        both = LabelQuery.model_validate({**query.model_dump(exclude_none=True), **fields})
    except ValidationError as error:
        raise _bad_parameter(error.errors()) from None
    return Asked(camera=both.camera, top_k=both.top_k or 5, frame=both.frame)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _bad_parameter(errors: Any) -> Problem:
    said = "; ".join(
        f"{'.'.join(str(part) for part in error['loc'] if part != 'query')} is "
        f"{str(error.get('input'))[:80]!r}: {error['msg'].lower()}"
        for error in errors
    )
    known = ", ".join(LabelQuery.model_fields)
    return Problem("bad-parameter", said, f"The parameters are {known}; see /docs.")


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        return error.response(request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _bad_parameter(error.errors()).response(request.state.request_id)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        found = Problem(
            kind,
            f"{request.method} {request.url.path[:200]}: {str(error.detail)[:200]}",
            "See /docs for what there is.",
        )
        answer = found.response(request.state.request_id)
        # Which methods there are, with 405.
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Raised again behind this, so that the envelope logs it.
        found = Problem(
            "internal",
            "the service failed on this request",
            "Try again; if it lasts, give the request id to whoever runs the service.",
        )
        return found.response(request.state.request_id)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        found = Problem("bad-request", "the client went away", "Send the whole request.")
        return found.response(request.state.request_id)
