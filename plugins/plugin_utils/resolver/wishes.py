# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what a user asked for: types and spellings, before anything is chosen. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import looks_like_version

DEFAULTS: dict[str, Any] = {
    "nvidia_driver_version": "auto",
    "nvidia_driver_source": "auto",
    "nvidia_driver_flavour": "auto",
    "cuda_toolkit_version": "auto",
    "cudnn_version": "auto",
    "python_version": "auto",
    "pytorch_version": "2.0.1",
    "pytorch_cuda": "auto",
    "pytorch_environments": [{"name": "default"}],
    "pytorch_index_url": "",
    "gpufleet_prefix": "/opt/gpufleet",
    "gpufleet_cache_dir": "/opt/gpufleet/cache",
    "gpufleet_environment": "profile",
    "gpufleet_gpu_sysroot": "/",
    "verify_seed": 0,
}
VERSIONS = {
    "nvidia_driver_version": ("auto", "none"),
    "cuda_toolkit_version": ("auto", "none"),
    "cudnn_version": ("auto", "none"),
    "python_version": ("auto",),
    "pytorch_version": ("auto",),
}
CHOICES = {
    "nvidia_driver_source": ("auto", "distro", "none"),
    "nvidia_driver_flavour": ("auto", "open", "proprietary"),
    "gpufleet_environment": ("profile", "none"),
}
ENVIRONMENT_KEYS = ("name", "version", "cuda", "requirements")


def read(wanted: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """The wishes with their defaults; every wish that cannot be read is a conflict."""
    for name in sorted(set(wanted) - set(DEFAULTS)):
        _bad(decision, name, f"there is no variable {name}", "remove it, or see the table of variables in README.md")
    wishes = {**DEFAULTS, **{name: value for name, value in wanted.items() if name in DEFAULTS}}
    for name, words in VERSIONS.items():
        _check_version(decision, name, wishes[name], words)
    for name, choices in CHOICES.items():
        if wishes[name] not in choices:
            _bad(decision, name, f"{name} is {wishes[name]!r}", f"use one of: {', '.join(choices)}")
    _check_environments(decision, wishes["pytorch_environments"])
    return wishes


def _check_version(decision: Decision, name: str, value: Any, words: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        # YAML reads 2.10 as the number 2.1: what was written is lost, so it is refused rather than guessed.
        _bad(
            decision,
            name,
            f"{name} is {value!r}, which is {_kind(value)}, not text",
            f'write it in quotes: {name}: "{value}"',
        )
    elif value not in words and not looks_like_version(value):
        _bad(
            decision,
            name,
            f"{name} is {value!r}, which is no version",
            f'use a version such as "2.0.1", or {" or ".join(words)}',
        )


def _kind(value: Any) -> str:
    # Ansible hands over subclasses of the plain types; their names would mean nothing to a user.
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "no version"


def _check_environments(decision: Decision, environments: Any) -> None:
    name = "pytorch_environments"
    if not isinstance(environments, list) or not environments:
        _bad(decision, name, f"{name} is not a list of environments", f"{name}: [{{name: default}}]")
        return
    seen: set[str] = set()
    for environment in environments:
        label = environment.get("name") if isinstance(environment, dict) else None
        if not isinstance(label, str) or not label.replace("-", "").replace("_", "").isalnum():
            _bad(
                decision,
                name,
                f"an environment without a usable name: {environment!r}",
                "name it with letters, digits, - and _",
            )
            continue
        for key in sorted(set(environment) - set(ENVIRONMENT_KEYS)):
            _bad(
                decision,
                name,
                f"environment {label} has the unknown key {key}",
                f"use only: {', '.join(ENVIRONMENT_KEYS)}",
            )
        if label in seen:
            _bad(
                decision, name, f"the environment {label} is declared twice", "give each environment a name of its own"
            )
        if "version" in environment:
            _check_version(decision, f"version of environment {label}", environment["version"], ("auto",))
        seen.add(label)


def _bad(decision: Decision, name: str, message: str, fix: str) -> None:
    decision.conflict(
        "GF-WISH-INVALID", message, [f"{name} was set in the inventory, a variables file or with -e"], [fix]
    )
