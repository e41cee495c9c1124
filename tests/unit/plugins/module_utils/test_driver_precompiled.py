"""Modules that the distribution built: the newest kernel must have one, headers oblige to nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_precompiled
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def kernel(release: str, module: str | None, image: bool = True) -> dict[str, Any]:
    return {"release": release, "headers": True, "image": image, "module": module, "version": None, "signer": None}


def test_an_older_kernel_may_be_without() -> None:
    state = [kernel("6.8.0-45-generic", None), kernel("6.8.0-101-generic", "nvidia.ko")]
    driver_precompiled.check(state)
    assert [each["headers"] for each in driver_precompiled.without_dkms(state)] == [False, False]


def test_the_newest_may_not() -> None:
    state = [kernel("6.8.0-45-generic", "nvidia.ko"), kernel("6.8.0-101-generic", None)]
    with pytest.raises(GpufleetError) as caught:
        driver_precompiled.check(state)
    assert caught.value.code == "GF-MODULES-MISSING"
    assert "6.8.0-101-generic" in str(caught.value)


def test_a_directory_without_a_kernel_is_none() -> None:
    driver_precompiled.check([kernel("6.8.0-45-generic", "nvidia.ko"), kernel("6.9.0-1-generic", None, image=False)])
