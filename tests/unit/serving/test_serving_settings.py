"""Arguments and Serve configuration: what is misspelled or cannot work is told, with its value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from mint_stream.config import ConfigError
from mint_stream.serving.application import build_app, plan_service
from mint_stream.serving.check import check_config, main
from mint_stream.serving.http.token import TOKEN_VARIABLE
from mint_stream.serving.settings import Settings, read_settings

SERVE_YAML = Path(__file__).parents[3] / "infra" / "serve.yaml"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> tiny.Assets:
    return tiny.write_assets(tmp_path_factory.mktemp("tiny"))


def test_arguments_from_a_command_line_are_text_and_understood() -> None:
    settings = read_settings({"model": "bundled", "replicas": "2", "max_image_mb": "2.5"})
    assert (settings.replicas, settings.max_image_mb, settings.adapt) == (2, 2.5, "off")


def _fields() -> set[str]:
    return set(Settings.model_fields)


@pytest.mark.parametrize(("written", "meant"), [("off", "off"), ("on", "on"), ("shadow", "shadow")])
def test_yaml_s_bare_off_and_on_are_what_they_say(written: str, meant: str) -> None:
    arguments = yaml.safe_load(f"adapt: {written}\nbank: /tmp/labelled/bank\nmodel: bundled")
    assert read_settings(arguments).adapt == meant


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"labls": "x"}, "labls is not an argument of build_app; there are adapt,"),
        ({"preset": "papers"}, "preset is 'papers'; it must be one of"),
        ({"preset": "zero"}, "preset is 'zero'; it must be one that answers by a bank"),
        ({"replicas": 0}, "replicas is 0: "),
        ({"adapt": "maybe"}, "adapt is 'maybe': "),
        ({"adapt": "on"}, "off without a bank; name `bank`"),
        ({"preset": "frozen", "bank": "/b"}, "bank is '/b'; it must be left out with preset"),
        ({"preset": "frozen", "adapt": "on", "bank_actor": "b"}, "bank_actor is 'b'"),
        ({"model": "ViT-B-16"}, 'labels is "the bundled CLIP\'s"; it must be given with model'),
        ({"bank_actor": "auto"}, "bank_actor is 'auto'; it must be given with `bank`"),
        ({"adapt_budget": 0.5}, "adapt_budget is 0.5; it must be left out with adapt off"),
        ({"adapt_budget": 2}, "adapt_budget is 2: "),
        ({"device": "mps"}, "device is 'mps', which has no float64"),
        ({"device": "cuda:1", "num_gpus": 0.5}, "shows it no other: use device cuda"),
        ({"max_waiting": 4}, "max_waiting is 4; it must be at least max_images"),
    ],
)
def test_what_cannot_work_is_named_with_its_value(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build_app({"model": "bundled", **arguments})


def test_a_missing_class_list_and_a_missing_token_are_told_before_a_replica_starts(
    assets: tiny.Assets, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        build_app({"model": str(assets.model), "labels": "/nowhere/labels.txt"})
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"has no {TOKEN_VARIABLE}"):
        plan_service(read_settings({"model": "bundled", "require_token": True}))


@pytest.mark.parametrize("arguments", [{}, {"labels": "own.txt"}, {"bank": "s3://c/labelled"}])
def test_the_bundled_clip_does_not_answer_unasked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model is missing; it must be named: .*or bundled"):
        build_app(arguments)


def test_the_bundled_clip_answers_where_it_is_asked_for() -> None:
    settings = read_settings({"model": "bundled"})
    assert settings.labels.endswith("demo/labels.txt")
    assert len(plan_service(settings).classes.names) == 10


def test_a_configuration_without_a_model_is_refused_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(re.sub(r"^ +(model|weights): .*\n", "", SERVE_YAML.read_text(), flags=re.M))
    assert main([str(path)]) == 2
    assert "model is missing" in capsys.readouterr().err


def test_no_setting_holds_a_secret() -> None:
    assert {name for name in _fields() if "token" in name or "secret" in name} == {"require_token"}


@pytest.mark.parametrize("bank", ["s3://cameras/labelled/bank", "s3://cameras/labelled/bank/"])
def test_the_bank_s_folder_belongs_to_its_output(bank: str) -> None:
    for named in (bank, "s3://cameras/labelled"):
        settings = read_settings({"model": "bundled", "bank": named})
        assert settings.bank_root == "s3://cameras/labelled"


def test_the_shipped_configuration_is_sound_and_listens_on_loopback() -> None:
    schema = check_config(SERVE_YAML)
    assert schema.http_options.host == "127.0.0.1"
    assert main([str(SERVE_YAML)]) == 0


def test_every_key_of_the_shipped_configuration_is_refused_when_misspelled(tmp_path: Path) -> None:
    text = SERVE_YAML.read_text()
    keys = re.findall(r"^[ -]*([a-z_]+):", text, flags=re.M)
    assert len(keys) > 25
    accepted = []
    for key in set(keys):
        path = tmp_path / "serve.yaml"
        path.write_text(re.sub(rf"^([ -]*){key}:", rf"\1{key}x:", text, count=1, flags=re.M))
        try:
            check_config(path)
            accepted.append(key)
        except ConfigError as error:
            assert key in str(error)  # noqa: PT017 - which key it names is what is tested
    assert accepted == []


def test_a_misspelled_key_is_told_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(SERVE_YAML.read_text().replace("max_queued_requests", "max_queue_requests"))
    assert main([str(path)]) == 2
    assert "deployments[0].max_queue_requests is not known to Serve" in capsys.readouterr().err
