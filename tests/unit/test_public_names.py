"""The public names are there, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mint_stream


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    assert not {"torch", "ray", "pyarrow", "open_clip"} & loaded_after("import mint_stream")


def test_reading_results_back_needs_neither_torch_nor_ray() -> None:
    loaded = loaded_after("from mint_stream import read_labels, RunConfig, RunSummary")
    assert not {"torch", "ray", "open_clip"} & loaded


@pytest.mark.parametrize("name", mint_stream.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mint_stream, name) is not None
    assert name in dir(mint_stream)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'MintAdaptor'"):
        mint_stream.MintAdaptor  # noqa: B018


def test_the_version_is_that_of_the_installed_package() -> None:
    assert mint_stream.__version__[0].isdigit()
