# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks: the exact wheels of an environment, resolved once on the controller. Private to the collection.

A lock is a ``pylock.toml`` (PEP 751) for one platform and one Python, with exactly one wheel for each package: its
address, SHA-256 and size. What it was made for stands in its header; as long as that is what is wanted, the file is
used as it is and no index is asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import tomllib
from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# ansible-core requires packaging and brings it; a check of this file alone may run without it.
try:
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
except ImportError as error:
    PACKAGING_MISSING: ImportError | None = error
else:
    PACKAGING_MISSING = None

Wheel = dict[str, Any]

HEADER = "# made-for: "
# The glibc versions for which uv has a platform of its own; a node gets the newest that is not newer than its own.
UV_GLIBC_MINORS = (40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17)
OLDEST_GLIBC_MINOR = {"x86_64": 5, "aarch64": 17}
LEGACY_PLATFORMS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# An index that is down has to be known as such within a minute: uv tries each request this often, this long.
NETWORK = {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_RETRIES": "3"}
RESOLVE_TIMEOUT = 600
SIZE_TIMEOUT = 20
UV_INSTALL = "pip install uv"


@dataclass(frozen=True)
class Lock:
    """A lock as text and as data.

    :param path: the file on the controller, written or not.
    :param text: content of the file; what the node installs from.
    :param sha256: SHA-256 of the text.
    :param download_bytes: sum of all wheels, None where the index does not tell every size.
    :param wheels: ``{name, version, url, sha256, size}`` each, sorted by name.
    """

    path: str
    text: str
    sha256: str
    download_bytes: int | None
    wheels: list[Wheel]


def ensure_lock(
    requirements: list[str],
    python: str,
    architecture: str,
    glibc: str | None,
    lock_directory: str,
    name: str,
    index_url: str | None = None,
    extra_index_url: str | None = None,
    write: bool = True,
) -> Lock:
    """The lock for these requirements on this platform: the one at hand, else a new one.

    :param requirements: as pip writes them.
    :param python: major and minor, ``3.11``.
    :param architecture: ``x86_64`` or ``aarch64``.
    :param glibc: major and minor of the node's C library; None asks for wheels that every supported node can load.
    :param lock_directory: where locks are kept on the controller.
    :param name: first part of the file's name.
    :param index_url: the index in place of uv's own default.
    :param extra_index_url: a second index, asked for every package as well.
    :param write: False leaves the directory as it is; the lock is then made in memory only.
    :raises GpufleetError: GF-UV-MISSING, GF-INDEX-UNREACHABLE, GF-RESOLVE, GF-LOCK-INVALID.
    """
    made_for = {
        "architecture": architecture,
        "extra_index": without_credentials(extra_index_url or ""),
        "glibc": glibc,
        "index": without_credentials(index_url or ""),
        "python": python,
        "requirements": sorted(requirements),
    }
    path = os.path.join(lock_directory, _file_name(name, python, architecture, glibc))
    former = _read(path)
    if former is not None and _made_for(path, former) == made_for:
        return _lock(path, former)
    document = _compile(requirements, made_for, index_url, extra_index_url)
    wheels = _choose_wheels(document, python, architecture, glibc)
    _fill_in_sizes(wheels)
    text = _render(made_for, python, wheels)
    if write:
        _write(path, text)
    return _lock(path, text)


def uv_tool(
    architecture: str,
    glibc: str | None,
    lock_directory: str,
    index_url: str | None = None,
    write: bool = True,
) -> dict[str, Any]:
    """``{version, url, sha256, size}`` of the wheel that brings the controller's uv to a node."""
    version = uv_version()
    lock = ensure_lock(
        [f"uv=={version}"],
        # uv's wheels fit any Python; a fixed one makes the lock the same whatever the controller runs.
        python="3.11",
        architecture=architecture,
        glibc=glibc,
        lock_directory=lock_directory,
        name=f"uv-{version}",
        index_url=index_url,
        write=write,
    )
    wheel = lock.wheels[0]
    return {key: wheel[key] for key in ("version", "url", "sha256", "size")}


def uv_path() -> str:
    """The controller's uv: beside the Python that runs Ansible, or on ``PATH``."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    found = beside if os.access(beside, os.X_OK) else shutil.which("uv")
    if found is None:
        raise GpufleetError(
            "GF-UV-MISSING",
            f"uv is neither beside {sys.executable} nor on PATH of the controller",
            "the controller's requirements are not installed",
            f"{sys.executable} -m {UV_INSTALL}",
        )
    return found


def uv_version() -> str:
    """Version of the controller's uv."""
    answer = subprocess.run([uv_path(), "--version"], check=False, capture_output=True, text=True, timeout=60)
    match = re.match(r"uv (\S+)", answer.stdout)
    if match is None:
        raise GpufleetError(
            "GF-UV-MISSING",
            f"{uv_path()} --version does not answer with a version: {(answer.stderr or answer.stdout).strip()[:200]}",
            "the uv of the controller is damaged or made for another architecture",
            f"{sys.executable} -m pip install --force-reinstall uv",
        )
    return match.group(1)


def without_credentials(url: str) -> str:
    """The URL without user and password: what may be written down and shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def uv_platform(architecture: str, glibc: str | None) -> str:
    """uv's name of the platform, for example ``x86_64-manylinux_2_36``."""
    own = _glibc_minor(glibc)
    minor = next((known for known in UV_GLIBC_MINORS if known <= own), 17)
    return f"{architecture}-manylinux_2_{minor}"


def _glibc_minor(glibc: str | None) -> int:
    match = re.match(r"2\.(\d+)", glibc or "")
    return int(match.group(1)) if match else 17


def _file_name(name: str, python: str, architecture: str, glibc: str | None) -> str:
    # PEP 751: pylock.<name>.toml, without further dots.
    platform = f"{architecture}-glibc{glibc or 'any'}"
    return f"pylock.{re.sub(r'[^A-Za-z0-9_+-]', '_', f'{name}-py{python}-{platform}')}.toml"


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, f"cannot be read: {error}") from error


def _made_for(path: str, text: str) -> Any:
    for line in text.splitlines():
        if line.startswith(HEADER):
            try:
                return json.loads(line[len(HEADER) :])
            except ValueError as error:
                raise _invalid(path, f"has a damaged header: {error}") from error
    raise _invalid(path, "does not say what it was made for")


def _invalid(path: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-LOCK-INVALID",
        f"the lock {path} {what}",
        "it was edited, cut off, or merged with conflicts",
        f"restore it from version control, or remove it so that a new one is made: rm {path}",
    )


def _lock(path: str, text: str) -> Lock:
    """The lock in this text, checked."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(path, f"is not TOML: {error}") from error
    packages = document.get("packages")
    if not isinstance(packages, list) or not packages:
        raise _invalid(path, "holds no packages")
    wheels: list[Wheel] = []
    for package in packages:
        found = package.get("wheels") if isinstance(package, dict) else None
        if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
            raise _invalid(path, f"has not exactly one wheel for {_label(package)}")
        wheel = {
            "name": package.get("name"),
            "version": package.get("version"),
            "url": found[0].get("url"),
            "sha256": (found[0].get("hashes") or {}).get("sha256"),
            "size": found[0].get("size"),
        }
        whole = all(isinstance(wheel[key], str) for key in ("name", "version", "url", "sha256"))
        if not whole or not re.fullmatch(r"[0-9a-f]{64}", wheel["sha256"]):
            raise _invalid(path, f"lacks address, version or SHA-256 of {_label(package)}")
        wheels.append(wheel)
    sizes = [wheel["size"] for wheel in wheels]
    total = None if any(size is None for size in sizes) else sum(sizes)
    return Lock(path, text, hashlib.sha256(text.encode()).hexdigest(), total, wheels)


def _label(package: Any) -> str:
    return str(package.get("name", "a package without a name")) if isinstance(package, dict) else "a package"


def _compile(
    requirements: list[str], made_for: dict[str, Any], index_url: str | None, extra_index_url: str | None
) -> dict[str, Any]:
    """What uv resolves, as data."""
    platform = uv_platform(made_for["architecture"], made_for["glibc"])
    with tempfile.TemporaryDirectory(prefix="gpufleet-lock-") as directory:
        wanted = os.path.join(directory, "requirements.in")
        with open(wanted, "w", encoding="utf-8") as handle:
            handle.write("".join(f"{requirement}\n" for requirement in requirements))
        command = [uv_path(), "pip", "compile", wanted, "--format", "pylock.toml", "--no-header", "--quiet"]
        command += ["--python", sys.executable, "--no-python-downloads", "--only-binary", ":all:"]
        command += ["--python-version", made_for["python"], "--python-platform", platform]
        environment = {**NETWORK, **os.environ, "LC_ALL": "C", "LANGUAGE": "C", "NO_COLOR": "1"}
        # The environment, not arguments: an index may carry a password, and every user sees arguments.
        if index_url:
            environment["UV_DEFAULT_INDEX"] = index_url
        if extra_index_url:
            environment["UV_INDEX"] = extra_index_url
            # Builds with a local version (+cu118) are on the second index only, their dependencies on the first.
            environment["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        try:
            answer = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=RESOLVE_TIMEOUT,
                cwd=directory,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise _unreachable(made_for, f"no answer within {RESOLVE_TIMEOUT} s") from error
    if answer.returncode != 0:
        raise _explain(answer.stderr, requirements, made_for)
    try:
        return tomllib.loads(answer.stdout)
    except tomllib.TOMLDecodeError as error:
        raise GpufleetError(
            "GF-RESOLVE",
            f"uv's lock for {', '.join(requirements)} is not TOML: {error}",
            "the uv of the controller writes another format",
            f"{sys.executable} -m {UV_INSTALL} --upgrade",
        ) from error


def _explain(text: str, requirements: list[str], made_for: dict[str, Any]) -> GpufleetError:
    reason = trim(text)
    if re.search(r"error sending request|Failed to fetch|status (server|client) error|timed? ?out|dns error", reason):
        return _unreachable(made_for, reason)
    asked = f"Python {made_for['python']} on {made_for['architecture']} with glibc {made_for['glibc']}"
    return GpufleetError(
        "GF-RESOLVE",
        f"no wheels fit {', '.join(requirements)} for {asked}: {reason}",
        "a version does not exist, has no wheel for this platform, or two requirements exclude each other",
        "ask for another version (pytorch_version, pytorch_cuda, requirements), or for an index that has it",
    )


def _unreachable(made_for: dict[str, Any], reason: str) -> GpufleetError:
    index = " and ".join(filter(None, [made_for["index"], made_for["extra_index"]])) or "uv's default index"
    return GpufleetError(
        "GF-INDEX-UNREACHABLE",
        f"the package index does not answer ({index}): {reason}",
        "no network, a proxy that is not set (https_proxy), a wrong address, or an index that is down",
        "try the address with curl from the controller; set pytorch_index_url to a mirror that answers",
    )


def trim(text: str, limit: int = 600) -> str:
    """uv's own reason on one line: no warnings, no decoration, no password, not endless."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [re.sub(r"^(error|cause|×|╰─▶|├─▶|│)\s*:?\s*", "", line) for line in lines]
    kept = [line for line, raw in zip(kept, lines, strict=True) if line and not raw.startswith("warning:")]
    reason = re.sub(r"//[^/@\s]+@", "//", " - ".join(kept))
    return reason if len(reason) <= limit else reason[: limit - 1] + "…"


def _platforms(architecture: str, glibc: str | None) -> list[str]:
    """Platform tags that the node can load, best first."""
    platforms: list[str] = []
    for minor in range(_glibc_minor(glibc), OLDEST_GLIBC_MINOR.get(architecture, 17) - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{architecture}")
        if minor in LEGACY_PLATFORMS:
            platforms.append(f"{LEGACY_PLATFORMS[minor]}_{architecture}")
    return [*platforms, f"linux_{architecture}"]


def _ranks(python: str, architecture: str, glibc: str | None) -> dict[Tag, int]:
    if PACKAGING_MISSING is not None:
        raise PACKAGING_MISSING
    major, minor = (int(part) for part in python.split(".")[:2])
    platforms = _platforms(architecture, glibc)
    tags = [*cpython_tags((major, minor), platforms=platforms)]
    tags += compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=platforms)
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _choose_wheels(document: dict[str, Any], python: str, architecture: str, glibc: str | None) -> list[Wheel]:
    """One wheel for each package, the one that an installer on the node would take."""
    ranks = _ranks(python, architecture, glibc)
    chosen = [_choose(package, ranks) for package in document.get("packages", [])]
    return sorted(chosen, key=lambda wheel: str(wheel["name"]))


def _choose(package: dict[str, Any], ranks: dict[Tag, int]) -> Wheel:
    candidates: list[tuple[int, Any, dict[str, Any]]] = []
    for wheel in package.get("wheels", []):
        url = wheel.get("url", "")
        try:
            parsed = parse_wheel_filename(unquote(wheel.get("name") or url.split("#")[0].rsplit("/", 1)[-1]))
        except InvalidWheelFilename:
            continue
        known = [ranks[tag] for tag in parsed[3] if tag in ranks]
        if known and url:
            candidates.append((-min(known), parsed[2], wheel))
    if not candidates:
        raise GpufleetError(
            "GF-RESOLVE",
            f"{_label(package)} {package.get('version', '')} has no wheel with an address for this platform",
            "it comes from a directory, a repository or a source archive, which nodes cannot install from",
            "ask for a version that an index serves as a wheel",
        )
    # Of two wheels with the same tags the one with the higher build number counts.
    best = max(candidates, key=lambda candidate: candidate[:2])[2]
    sha256 = (best.get("hashes") or {}).get("sha256")
    if sha256 is None:
        raise GpufleetError(
            "GF-RESOLVE",
            f"the index does not tell the SHA-256 of {_label(package)} {package.get('version', '')}",
            "an index without hashes: what a node downloads could not be checked",
            "use an index that serves hashes (PEP 503 fragments or PEP 691)",
        )
    return {
        "name": canonicalize_name(package["name"]),
        "version": package["version"],
        "url": without_credentials(best["url"].split("#")[0]),
        "sha256": sha256,
        "size": best.get("size"),
    }


def _fill_in_sizes(wheels: list[Wheel]) -> None:
    """Ask for the sizes that the index did not tell (indexes without PEP 691); a size nobody tells stays None."""
    missing = [wheel for wheel in wheels if wheel["size"] is None]
    if missing:
        with ThreadPoolExecutor(max_workers=8) as pool:
            for wheel, size in zip(missing, pool.map(_size, [wheel["url"] for wheel in missing]), strict=True):
                wheel["size"] = size


def _size(url: str) -> int | None:
    try:
        with open_url(url, method="HEAD", headers={"Accept-Encoding": "identity"}, timeout=SIZE_TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
    except (OSError, ValueError):
        return None
    return int(length) if length and length.isdigit() else None


def _render(made_for: dict[str, Any], python: str, wheels: list[Wheel]) -> str:
    """The lock as text. JSON strings are TOML strings as long as they are ASCII, which ``json.dumps`` sees to."""
    lines = [
        "# Made by gpufleet.stack: one wheel for each package, for this platform only. Keep it under version control.",
        HEADER + json.dumps(made_for, sort_keys=True),
        'lock-version = "1.0"',
        'created-by = "gpufleet.stack"',
        f'requires-python = ">={python}"',
    ]
    for wheel in wheels:
        size = "" if wheel["size"] is None else f"size = {wheel['size']}, "
        url, sha256 = json.dumps(wheel["url"]), json.dumps(wheel["sha256"])
        lines += [
            "",
            "[[packages]]",
            f"name = {json.dumps(wheel['name'])}",
            f"version = {json.dumps(wheel['version'])}",
            f"wheels = [{{ url = {url}, {size}hashes = {{ sha256 = {sha256} }} }}]",
        ]
    return "\n".join(lines) + "\n"


def _write(path: str, text: str) -> None:
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise GpufleetError(
            "GF-LOCK-INVALID",
            f"the lock {path} cannot be written: {error.strerror}",
            "the directory of locks on the controller is not writable, or its disk is full",
            "set gpufleet_lock_directory to a directory that you can write to",
        ) from error
