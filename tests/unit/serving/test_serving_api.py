"""The service over HTTP, in this process: its description, tokens, page, and what must not leak."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path

import image_files
import pytest
import serving_world as world
import tiny
from pydantic import BaseModel
from serving_client import LIMITS, parts, problem
from starlette.testclient import TestClient

from mint_stream.serving.answers import bank_missing
from mint_stream.serving.http import messages
from mint_stream.serving.http.api import PAGE
from mint_stream.serving.http.token import TOKEN_VARIABLE
from mint_stream.serving.service import Service, ServicePlan


def test_addresses_and_methods_that_there_are_not(client: TestClient) -> None:
    problem(client.get("/v2/label"), "not-found")
    problem(client.get("/v1/label"), "method-not-allowed")


def test_a_method_that_there_is_not_is_answered_with_those_that_there_are(
    client: TestClient,
) -> None:
    for method, path in (("HEAD", "/v1/info"), ("POST", "/healthz"), ("OPTIONS", "/v1/label")):
        answer = client.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] in ("GET", "POST")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/docs", "/openapi.json"])
def test_head_is_answered_as_get_is_without_a_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.content == b""


def test_head_says_that_a_service_is_not_ready(
    running: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = running

    def not_ready() -> None:
        raise bank_missing("nothing there")

    monkeypatch.setattr(service, "ready", not_ready)
    assert client.head("/readyz").status_code == client.get("/readyz").status_code == 503


def test_info_and_bank_say_what_answers(client: TestClient, limited: ServicePlan) -> None:
    info = client.get("/v1/info").json()
    assert info["classes"] == list(tiny.CLASSES)
    assert (info["preset"], info["adapt"], info["model_hash"]) == (
        "paper",
        "off",
        limited.model_hash,
    )
    assert info["bank_seq"] == 5
    assert 0 <= info["bank_age_s"] < 600
    assert info["limits"]["images_batch"] == LIMITS["max_images_batch"]
    bank = client.get("/v1/bank").json()
    assert (bank["seq"], bank["entries"], bank["used_entries"]) == (5, 512, 512)
    assert bank["source"].endswith(".json")
    assert bank["last_error"] is None


def test_request_ids_are_kept_if_they_are_plain_words_and_made_if_not(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-ID": "order-7.1"})
    assert kept.headers["x-request-id"] == "order-7.1"
    made = client.get("/healthz", headers={"X-Request-ID": "a b\t<script>"})
    assert "script" not in made.headers["x-request-id"]
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(5)}) == 5


def test_the_log_has_the_request_and_nothing_of_the_image(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("ray.serve").propagate = True
    with caplog.at_level(logging.INFO, logger="ray.serve.mint_stream"):
        client.post(
            "/v1/label?frame=secret-name",
            content=image_files.jpeg(),
            headers={**world.JPEG, "X-Request-ID": "seen-1"},
        )
    (line,) = {record.getMessage() for record in caplog.records if "seen-1" in record.getMessage()}
    assert "POST /v1/label status=200 images=1" in line
    assert "secret-name" not in line


def test_what_fails_inside_is_an_id_and_no_stack_trace(
    running: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = running

    async def fail(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(service, "_batch", fail)
    answer = client.post("/v1/label", content=image_files.jpeg(), headers=world.JPEG)
    problem(answer, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    monkeypatch.undo()
    monkeypatch.setattr(service, "info", lambda: 1 / 0)
    answer = client.get("/v1/info")
    problem(answer, "internal")
    assert "division" not in answer.text
    assert service.held == 0


def test_a_token_is_asked_for_where_the_environment_has_one(
    limited: ServicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    right = {"Authorization": "Bearer s3cret"}
    with world.client(limited) as client:
        for path in ("/v1/info", "/v1/bank"):
            assert "no token" in problem(client.get(path), "unauthorized").detail
            assert client.get(path, headers=right).status_code == 200
        for given in ("s3cret2", "s3cre", "S3CRET", "geheim-ü", ""):
            answer = client.post(
                "/v1/label",
                content=image_files.jpeg(),
                headers=[
                    (b"Content-Type", b"image/jpeg"),
                    (b"Authorization", f"Bearer {given}".encode()),
                ],
            )
            problem(answer, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = client.post("/v1/labels:batch", files=parts(image_files.jpeg()), headers=right)
        assert answer.status_code == 200
        for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_an_unauthorised_body_is_not_read(
    limited: ServicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")

    async def scenario() -> None:
        service = world.service(limited, world.Direct(limited))
        status, _, _ = await world.ask(service, image_files.jpeg(), body_may_be_read=False)
        assert status == 401

    asyncio.run(scenario())


def test_the_description_is_complete_and_its_examples_are_true(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/v1/label", "/v1/labels:batch", "/v1/info", "/v1/bank", "/healthz", "/readyz")
    }
    text = json.dumps(described)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in described["components"]["schemas"]
    label = described["paths"]["/v1/label"]["post"]
    assert set(label["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp", "multipart/form-data")
    }
    assert {p["name"] for p in label["parameters"]} == {"camera", "top_k", "frame"}
    assert all(p["description"] and p["schema"] for p in label["parameters"])
    assert {"200", "400", "401", "408", "413", "415", "422", "500", "503"} == set(
        label["responses"]
    )
    for code, response in label["responses"].items():
        assert response["description"]
        if code != "200":
            assert response["content"]["application/problem+json"]["examples"]
    schemas = described["components"]["schemas"]
    told = [model for model in vars(messages).values() if isinstance(model, type)]
    models = {model.__name__: model for model in told if issubclass(model, BaseModel)}
    for path in described["paths"].values():
        for operation in path.values():
            answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
            for part in answer.get("anyOf", [answer]):
                assert schemas[part["$ref"].rpartition("/")[2]]["examples"]
    for name, schema in schemas.items():
        for example in schema.get("examples", []):
            models[name].model_validate(example)
    assert label["security"] == [{"HTTPBearer": []}]


def test_the_page_is_self_contained(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.text == PAGE.read_text()
    assert "http" not in answer.text.replace("${", "").lower().split("<body>")[0]
    for reference in ('src="', 'href="', "@import", "url("):
        assert reference not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_description_is_a_page_that_needs_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    described = client.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert f"<code>{method.upper()} {path}</code>" in answer.text
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in answer.text
    for name in described["components"]["schemas"]:
        assert f'<h3 id="{name}">' in answer.text
    links = re.findall(r'(?:href|src)="([^"]*)"', answer.text)
    assert {link for link in links if not link.startswith("#")} == {"data:,", "openapi.json"}
    assert {f'id="{link[1:]}"' in answer.text for link in links if link[0] == "#"} == {True}
    assert "<script" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_the_page_has_no_secret_and_lies_in_the_package() -> None:
    assert PAGE.is_file()
    assert PAGE.is_relative_to(Path(__file__).parents[3] / "mint_stream")
