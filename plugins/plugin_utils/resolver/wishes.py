# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what a user asked for: types and spellings, before anything is chosen. Private to the collection."""

from __future__ import annotations

import difflib
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import requirements
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import installer, profiles, site_indexes
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import looks_like_version

DEFAULTS: dict[str, Any] = {
    "nvidia_driver_version": "auto",
    "nvidia_driver_source": "auto",
    "nvidia_driver_flavour": "auto",
    "nvidia_driver_imex": "auto",
    "nvidia_driver_dcgm": False,
    "nvidia_driver_container_toolkit": False,
    "nvidia_driver_modules": "auto",
    "nvidia_repository_url": "",
    "nvidia_driver_runfile": "",
    "nvidia_driver_runfile_sha256": "",
    "cuda_toolkit_version": "auto",
    "cuda_toolkit_source": "auto",
    "cuda_toolkit_runfiles": [],
    "cudnn_version": "auto",
    "cudnn_source": "auto",
    "cudnn_headers": True,
    "python_version": "auto",
    "python_provider": "auto",
    "pytorch_version": "2.0.1",
    "pytorch_cuda": "auto",
    "pytorch_environments": [{"name": "default"}],
    "pytorch_index_url": "",
    "pytorch_keep": 2,
    "pytorch_kernels": False,
    "pytorch_scope": "node",
    "pytorch_builds_index_url": "",
    "pytorch_site_indexes": [],
    "gpufleet_prefix": "/opt/gpufleet",
    "gpufleet_cache_dir": "/opt/gpufleet/cache",
    "gpufleet_catalog_overlay": "",
    "gpufleet_environment": "profile",
    "gpufleet_hold": False,
    "gpufleet_hold_kernel": False,
    "gpufleet_gpu_sysroot": "/",
    "gpufleet_wheelhouse": "auto",
    "gpufleet_offline": False,
    "verify_seed": 0,
    "verify_rules": [],
    "verify_outliers": "warn",
    "verify_level": "quick",
    "verify_max_age": 168,
    "verify_busy": False,
    "verify_user": "",
    "verify_launcher": "direct",
    "verify_prometheus_dir": "",
}
# Which words stand beside a version, and whether a list of versions is possible too.
VERSIONS = {
    "nvidia_driver_version": (("auto", "none"), False),
    "cuda_toolkit_version": (("auto", "none"), True),
    "cudnn_version": (("auto", "none"), True),
    "python_version": (("auto",), False),
    "pytorch_version": (("auto",), False),
}
CHOICES = {
    "nvidia_driver_source": ("auto", "distro", "nvidia", "runfile", "none"),
    "nvidia_driver_flavour": ("auto", "open", "proprietary"),
    "nvidia_driver_imex": ("auto", "true", "false"),
    "nvidia_driver_modules": ("auto", "dkms", "precompiled"),
    "cuda_toolkit_source": ("auto", "distro", "nvidia", "wheels", "runfile"),
    "cudnn_source": ("auto", "wheels", "nvidia"),
    "python_provider": ("auto", "distribution", "installed", "managed", "conda"),
    "gpufleet_environment": ("profile", "modules", "none"),
    "pytorch_scope": ("node", "shared"),
    "verify_outliers": ("warn", "fail", "ignore"),
    "verify_level": ("quick", "standard", "health", "fleet"),
    "verify_launcher": ("direct", "srun"),
}
TEXTS = (
    "pytorch_index_url",
    "pytorch_builds_index_url",
    "gpufleet_catalog_overlay",
    "nvidia_repository_url",
    "nvidia_driver_runfile",
    "nvidia_driver_runfile_sha256",
    "verify_user",
    "verify_prometheus_dir",
)
SWITCHES = (
    "gpufleet_hold",
    "gpufleet_hold_kernel",
    "gpufleet_offline",
    "nvidia_driver_dcgm",
    "nvidia_driver_container_toolkit",
    "cudnn_headers",
    "pytorch_kernels",
    "verify_busy",
)
# Where several of the words may stand in a list.
LISTS = ("cuda_toolkit_source",)
PATHS = ("gpufleet_prefix", "gpufleet_cache_dir", "gpufleet_gpu_sysroot")
ENVIRONMENT_KEYS = ("name", "version", "cuda", "python", "torchvision", "torchaudio", "profile", "requirements")
WHEELHOUSE = re.compile(r"^(auto|index|copy|cache|/.+|https?://[^/@\s]+(/\S*)?)$")
VARIANT = re.compile(r"^(auto|cpu|mps|cu\d{2,3})$")


def check(decision: Decision, asked: dict[str, Any]) -> None:
    """A conflict for every wish that cannot be read."""
    for name in sorted(set(map(str, asked)) - set(DEFAULTS)):
        near = difflib.get_close_matches(name, DEFAULTS, n=1)
        hint = f"write {near[0]}" if near else "remove it, or see the table of variables in README.md"
        _bad(decision, name, f"there is no variable {name}", [hint])
    wishes = decision.wanted
    for name, (words, several) in VERSIONS.items():
        _check_versions(decision, name, wishes[name], words, several)
    for name, choices in CHOICES.items():
        _check_choice(decision, name, wishes[name], choices)
    _check_variant(decision, "pytorch_cuda", wishes["pytorch_cuda"])
    for name in TEXTS:
        if not isinstance(wishes[name], str):
            _bad(decision, name, f"{name} is {wishes[name]!r}, which is no text", ["write it in quotes"])
    for name in PATHS:
        if not isinstance(wishes[name], str) or not wishes[name].startswith("/"):
            _bad(decision, name, f"{name} is {wishes[name]!r}", ["write the full path, from / on"])
    for name in SWITCHES:
        if not isinstance(wishes[name], bool):
            _bad(decision, name, f"{name} is {wishes[name]!r}", ["use true or false, without quotes"], wishes[name])
    _check_wheelhouse(decision, wishes["gpufleet_wheelhouse"], wishes["gpufleet_offline"])
    if isinstance(wishes["verify_seed"], bool) or not isinstance(wishes["verify_seed"], int):
        _bad(decision, "verify_seed", f"verify_seed is {wishes['verify_seed']!r}", ["use a whole number"])
    hours = wishes["verify_max_age"]
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or hours < 0:
        _bad(decision, "verify_max_age", f"verify_max_age is {hours!r}", ["use hours, or 0 for never too old"])
    folder = wishes["verify_prometheus_dir"]
    if isinstance(folder, str) and folder and not folder.startswith("/"):
        _bad(
            decision,
            "verify_prometheus_dir",
            f"verify_prometheus_dir is {folder!r}",
            ["write the full path, from / on"],
        )
    keep = wishes["pytorch_keep"]
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        _bad(decision, "pytorch_keep", f"pytorch_keep is {keep!r}", ["use a whole number from 1 on"])
    _check_environments(decision, wishes["pytorch_environments"])
    site_indexes.check(decision, wishes["pytorch_site_indexes"])
    if not decision.conflicts:
        _check_driver_runfile(decision)
    _check_toolkit_runfiles(decision, wishes["cuda_toolkit_runfiles"])


def _check_wheelhouse(decision: Decision, way: Any, offline: Any) -> None:
    name = "gpufleet_wheelhouse"
    if not isinstance(way, str) or not WHEELHOUSE.match(way):
        # Not the value itself: an address may hold a password, which does not belong on every node.
        advice = ["use auto, index, copy, cache, a full path, or an address without a password"]
        _bad(decision, name, f"{name} is none of its words, no full path and no plain address", advice)
    elif offline is True and way == "index":
        message = "gpufleet_offline is true, and gpufleet_wheelhouse has the nodes fetch from package indexes"
        _bad(decision, name, message, ["gpufleet_wheelhouse: auto"], way)


def _check_choice(decision: Decision, name: str, value: Any, choices: tuple[str, ...]) -> None:
    several = value if name in LISTS and isinstance(value, list) and value else [value]
    if not all(each in choices for each in several):
        more = ", or a list of them" if name in LISTS else ""
        _bad(decision, name, f"{name} is {value!r}", [f"use one of: {', '.join(choices)}{more}"])


def _check_versions(decision: Decision, name: str, value: Any, words: tuple[str, ...], several: bool) -> None:
    if not isinstance(value, list):
        _check_version(decision, name, value, words)
    elif not several or not value:
        what = "an empty list" if not value else "a list"
        _bad(decision, name, f"{name} is {what}", [f'use one version such as "2.0.1", or {" or ".join(words)}'])
    else:
        for each in value:
            _check_version(decision, name, each, ())


def _check_version(decision: Decision, name: str, value: Any, words: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        # YAML reads 2.10 as the number 2.1: what was written is lost, so it is refused rather than guessed.
        message = f"{name} is {value!r}, which is {_kind(value)}, not text"
        _bad(decision, name, message, [f'write it in quotes: {name}: "{value}"'], value)
    elif value not in words and not looks_like_version(value):
        usual = " or ".join(['a version such as "2.0.1"', *words])
        _bad(decision, name, f"{name} is {value!r}, which is no version", [f"use {usual}"], value)


def _check_variant(decision: Decision, name: str, value: Any) -> None:
    if not isinstance(value, str) or not VARIANT.match(value):
        _bad(decision, name, f"{name} is {value!r}", ["use auto, cpu, or a CUDA variant such as cu118"])


def _kind(value: Any) -> str:
    # Ansible hands over subclasses of the plain types; their names would mean nothing to a user.
    return "a number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "no version"


def _check_environments(decision: Decision, environments: Any) -> None:
    name = "pytorch_environments"
    if not isinstance(environments, list) or not environments:
        _bad(decision, name, f"{name} is not a list of environments", [f"{name}: [{{name: default}}]"])
        return
    labels = [each.get("name") if isinstance(each, dict) else None for each in environments]
    for label, environment in zip(labels, environments, strict=True):
        if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", label):
            message = f"an environment without a usable name: {environment!r:.100}"
            _bad(decision, name, message, ["name it with letters, digits, - and _"])
        else:
            _check_environment(decision, label, environment)
    for label in sorted({str(label) for label in labels if labels.count(label) > 1}):
        _bad(decision, name, f"the environment {label} is declared twice", ["give each environment a name of its own"])


def _check_environment(decision: Decision, label: str, environment: dict[str, Any]) -> None:
    name = "pytorch_environments"
    for key in sorted(set(map(str, environment)) - set(ENVIRONMENT_KEYS)):
        message = f"environment {label} has the unknown key {key}"
        _bad(decision, name, message, [f"use only: {', '.join(ENVIRONMENT_KEYS)}"])
    if "version" in environment:
        _check_version(decision, f"version of environment {label}", environment["version"], ("auto",))
    if "cuda" in environment:
        _check_variant(decision, f"cuda of environment {label}", environment["cuda"])
    if "python" in environment:
        _check_version(decision, f"python of environment {label}", environment["python"], ("auto",))
    for companion in ("torchvision", "torchaudio"):
        if companion in environment:
            wish = f"{companion} of environment {label}"
            _check_version(decision, wish, environment[companion], ("auto", "none"))
    known = profiles.names(decision)
    if "profile" in environment and environment["profile"] not in known:
        message = f"profile of environment {label} is {environment['profile']!r:.60}"
        _bad(decision, name, message, [f"use one of: {', '.join(known)}"])
    _check_requirements(decision, label, environment.get("requirements", []))


def _check_requirements(decision: Decision, label: str, wishes: Any) -> None:
    name = "pytorch_environments"
    if not isinstance(wishes, list) or not all(isinstance(each, str) for each in wishes):
        message = f"requirements of environment {label} is {wishes!r:.100}, which is no list of text and no full path"
        _bad(
            decision,
            name,
            message,
            ["requirements: [scikit-learn, matplotlib]", "requirements: /path/to/requirements.txt"],
        )
        return
    for each in wishes:
        wrong = requirements.problem(each)
        if wrong:
            shown = re.sub(r"//[^/@\s]+@", "//", each)
            _bad(decision, name, f"environment {label}: the requirement {shown:.100} {wrong}", ["correct it"])


def _check_driver_runfile(decision: Decision) -> None:
    wishes = decision.wanted
    if wishes["nvidia_driver_source"] != "runfile" or not decision.devices:
        return
    place, digest = wishes["nvidia_driver_runfile"], wishes["nvidia_driver_runfile_sha256"]
    source = {"wish": "nvidia_driver_source", "value": None}
    if not place:
        message = "nvidia_driver_source is runfile, and no installer is named"
        advice = ["nvidia_driver_runfile: path or address of NVIDIA-Linux-…run, and nvidia_driver_runfile_sha256"]
        _conflict(decision, message, advice, source)
    elif not installer.SHA256.match(digest):
        message = f"nvidia_driver_runfile_sha256 is {digest!r:.80}, which is no SHA-256"
        _conflict(
            decision, message, ["sha256sum NVIDIA-Linux-…run tells the 64 digits; compare them with NVIDIA's"], source
        )
    elif not re.match(r"/|[a-z][a-z0-9+.-]*://", place):
        _conflict(
            decision,
            f"nvidia_driver_runfile is {place!r:.100}",
            ["write the full path, from / on, or an address"],
            source,
        )
    elif installer.wanted_version(decision) is None:
        message = f"the name of {installer.basename(place)} says no version"
        _conflict(decision, message, ["keep NVIDIA's name of the file, or write nvidia_driver_version in full"], source)


def _check_toolkit_runfiles(decision: Decision, wishes: Any) -> None:
    name = "cuda_toolkit_runfiles"
    if not isinstance(wishes, list):
        _bad(decision, name, f"{name} is {wishes!r:.60}, not a list", [f"{name}: [{{file: …, sha256: …}}]"])
        return
    for wish in wishes:
        if not isinstance(wish, dict) or set(wish) != {"file", "sha256"}:
            _bad(decision, name, f"{name} has {wish!r:.100}", ["give each its file and its sha256, and nothing else"])
        elif not isinstance(wish["file"], str) or installer.toolkit(wish["file"]).version is None:
            _bad(
                decision,
                name,
                f"{wish['file']!r:.100} is no name of a toolkit's installer",
                ["keep NVIDIA's: cuda_12.6.3_560.35.05_linux.run"],
            )
        elif not re.match(r"/|[a-z][a-z0-9+.-]*://", wish["file"]):
            _bad(decision, name, f"{wish['file']!r:.100} is no full path", ["write it from / on, or as an address"])
        elif not isinstance(wish["sha256"], str) or not installer.SHA256.match(wish["sha256"]):
            _bad(decision, name, f"{wish['sha256']!r:.80} is no SHA-256", ["sha256sum cuda_….run tells the 64 digits"])


def _bad(decision: Decision, name: str, message: str, advice: list[str], value: Any = None) -> None:
    because = [f"{name} was set in the inventory, a variables file or with -e"]
    decision.conflict("GF-WISH-INVALID", message, because, advice, {"wish": name, "value": value})


def _conflict(decision: Decision, message: str, advice: list[str], about: dict[str, Any]) -> None:
    decision.conflict("GF-WISH-INVALID", message, ["nvidia_driver_source is runfile"], advice, about)
