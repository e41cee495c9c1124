# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the indexes, with uv: which version of each package, and where its wheels are. Private to the collection.

Each package has one index. Those of ``Wish.indexes`` are given to uv as explicit ones, which serve the packages that
are named and no others, and all other packages come from the first index: nothing of the same name elsewhere can take their place.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

import tomllib
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses, without_credentials
from ansible_collections.gpufleet.stack.plugins.plugin_utils.controller_uv import UV_INSTALL, uv_path
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_file import Wish
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_wheels import uv_platform

# An index that is down has to be known as such within a minute: uv tries each request this often, this long.
NETWORK = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_RETRIES": "3"}
RESOLVE_TIMEOUT = 600
# What of a user's settings for uv stays: the network and the cache. Another index would be asked unseen.
PASSED_ON = re.compile(
    r"UV_(CACHE_DIR|NO_CACHE|CONCURRENT_\w+|DEFAULT_INDEX|HTTP_\w+|INDEX_URL|INSECURE_HOST|KEYRING_PROVIDER|NATIVE_TLS|OFFLINE|SYSTEM_CERTS)$"
)
# Of these there are builds that differ in what follows the plus sign alone, and none may stand for another.
BUILDS = ("torch", "torchvision", "torchaudio")


def resolve(wish: Wish, addresses: Addresses) -> list[dict[str, Any]]:
    """The packages that uv resolves, each with all its wheels as PEP 751 has them.

    uv heeds the index of a package only where the package is asked for by name. One that others need, and that has an index
    of its own, is therefore asked for as well as soon as it turns up.

    :raises GpufleetError: GF-INDEX-UNREACHABLE, GF-RESOLVE.
    """
    asked = list(wish.requirements)
    while True:
        packages, reason = _ask(asked, wish, addresses)
        turned_up = (
            [package["name"] for package in packages] if packages is not None else re.findall(r"[\w.-]+", reason)
        )
        missing = sorted(wish.indexes.keys() & {_normal(each) for each in turned_up} - {*map(name_of, asked)})
        if not missing:
            break
        asked += missing
    if packages is None:
        raise _explain(reason, wish)
    _check_builds(packages, wish)
    return packages


def name_of(requirement: str) -> str:
    """The package that a requirement asks for."""
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return _normal(match.group(1)) if match else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _ask(asked: list[str], wish: Wish, addresses: Addresses) -> tuple[list[dict[str, Any]] | None, str]:
    """Run uv; answers the packages, or None and what uv says against it."""
    with tempfile.TemporaryDirectory(prefix="gpufleet-lock-") as directory:
        project = os.path.join(directory, "pyproject.toml")
        with open(project, "w", encoding="utf-8") as handle:
            handle.write(_project(asked, wish))
        command = [uv_path(), "pip", "compile", project, "--format", "pylock.toml", "--no-header", "--quiet"]
        command += ["--python", sys.executable, "--no-python-downloads", "--only-binary", ":all:"]
        command += ["--python-version", wish.python]
        command += ["--python-platform", uv_platform(wish.architecture, wish.glibc)]
        try:
            answer = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=RESOLVE_TIMEOUT,
                cwd=directory,
                env=_environment(wish, addresses),
            )
        except subprocess.TimeoutExpired as error:
            raise unreachable(wish, f"no answer within {RESOLVE_TIMEOUT} s") from error
    if answer.returncode != 0:
        return None, answer.stderr
    try:
        return tomllib.loads(answer.stdout).get("packages", []), ""
    except tomllib.TOMLDecodeError as error:
        raise GpufleetError(
            "GF-RESOLVE",
            f"uv's lock for {', '.join(wish.requirements)} is not TOML: {error}",
            "the uv of the controller writes another format",
            f"{sys.executable} -m {UV_INSTALL} --upgrade",
        ) from error


def _project(asked: list[str], wish: Wish) -> str:
    """What is wanted, as a project of uv's. JSON strings are TOML strings as long as they are ASCII."""
    lines = ["[project]", 'name = "gpufleet-lock"', 'version = "0"']
    lines += [f"dependencies = {json.dumps([_exact(requirement) for requirement in asked])}", "[tool.uv.sources]"]
    names = _index_names(wish)
    lines += [f"{json.dumps(name)} = {{ index = {json.dumps(names[url])} }}" for name, url in _bare(wish).items()]
    for url, name in names.items():
        lines += ["[[tool.uv.index]]", f"name = {json.dumps(name)}", f"url = {json.dumps(url)}", "explicit = true"]
    return "\n".join(lines) + "\n"


def _exact(requirement: str) -> str:
    """``torch==2.0.1`` means the plain build: with two equals signs 2.0.1+cpu would do as well, where an index has it."""
    match = re.match(rf"({'|'.join(BUILDS)})==([0-9][0-9A-Za-z.]*)$", requirement)
    return f"{match.group(1)}==={match.group(2)}" if match else requirement


def _bare(wish: Wish) -> dict[str, str]:
    return {name: without_credentials(url) for name, url in sorted(wish.indexes.items())}


def _index_names(wish: Wish) -> dict[str, str]:
    return {url: f"gpufleet{number}" for number, url in enumerate(dict.fromkeys(_bare(wish).values()))}


def _environment(wish: Wish, addresses: Addresses) -> dict[str, str]:
    """The environment, not arguments or the project's file: every user sees arguments, and passwords belong in no file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_") or PASSED_ON.match(name)}
    environment = {**NETWORK, **kept, "LC_ALL": "C", "LANGUAGE": "C", "NO_COLOR": "1", "UV_NO_CONFIG": "1"}
    if wish.index_url:
        environment.pop("UV_INDEX_URL", None)
        environment["UV_DEFAULT_INDEX"] = addresses.whole(wish.index_url)
    for url, name in _index_names(wish).items():
        login = addresses.login(url)
        if login is not None:
            environment[f"UV_INDEX_{name.upper()}_USERNAME"], environment[f"UV_INDEX_{name.upper()}_PASSWORD"] = login
    return environment


def _check_builds(packages: list[dict[str, Any]], wish: Wish) -> None:
    """What nobody asked for by name may not bring another build than torch's own."""
    builds = {package["name"]: str(package.get("version", "")).partition("+")[2] for package in packages}
    named = {name_of(requirement) for requirement in wish.requirements}
    for name in BUILDS[1:]:
        if name in builds and name not in named and builds[name] != builds.get("torch", builds[name]):
            raise GpufleetError(
                "GF-RESOLVE",
                f"{name} would come as build {builds[name] or 'without a name'} beside torch of "
                f"{builds['torch'] or 'the plain build'}",
                "the index has builds of several kinds, and another package asks for this one without a version",
                f"give the environment a version of {name} ({name}: auto is the one that belongs to torch)",
            )


def _explain(text: str, wish: Wish) -> GpufleetError:
    reason = trim(text)
    if re.search(r"error sending request|Failed to fetch|status (server|client) error|timed? ?out|dns error", reason):
        return unreachable(wish, reason)
    return GpufleetError(
        "GF-RESOLVE",
        f"no wheels fit {', '.join(wish.requirements)} for {wish.platform()}: {reason}",
        "a version does not exist, has no wheel for this platform, or two requirements exclude each other",
        "ask for another version (pytorch_version, pytorch_cuda, requirements), or for an index that has it",
    )


def unreachable(wish: Wish, reason: str) -> GpufleetError:
    """No index that this lock needs, or one of them, answers."""
    index = " and ".join(filter(None, [without_credentials(wish.index_url or ""), *_index_names(wish)]))
    return GpufleetError(
        "GF-INDEX-UNREACHABLE",
        f"the package index does not answer ({index or 'the default index of uv'}): {reason}",
        "no network, a proxy that is not set (https_proxy), a wrong address, or an index that is down",
        "try the address with curl from the controller; set pytorch_index_url to a mirror that answers",
    )


def trim(text: str, limit: int = 600) -> str:
    """uv's own reason on one line: no warnings, no decoration, no password, not endless."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [re.sub(r"^(error|cause|×|╰─▶|├─▶|│)\s*:?\s*", "", line) for line in lines]
    kept = [line for line, raw in zip(kept, lines, strict=True) if line and not raw.startswith("warning:")]
    reason = re.sub(r"//[^/@\s]+@", "//", " - ".join(kept)).replace("===", "==")
    return reason if len(reason) <= limit else reason[: limit - 1] + "…"
