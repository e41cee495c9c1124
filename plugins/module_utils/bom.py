# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bills of materials in CycloneDX's JSON: of an environment, and of what the NVIDIA roles brought. Private to the collection.

The same content has the same text wherever and whenever it is made: no time, nothing of the node that does not matter,
and a serial number that is made of the content.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable
from typing import Any, Dict
from urllib.parse import quote

from ansible_collections.gpufleet.stack.plugins.module_utils import receipts

Row = Dict[str, Any]
NVIDIA_FILE = "gpufleet-bom-nvidia.cdx.json"
NVIDIA_ROLES = ("nvidia_driver", "cuda_toolkit", "cudnn")
# Any fixed one does: serial numbers are made of it and of the content.
NAMESPACE = uuid.UUID("6f1ff3f3-5b0d-5d0c-9d3a-0f6a2f2b7c11")
TOOL = {"type": "application", "bom-ref": "tool", "name": "gpufleet.stack"}
# One package of a lock, as it is written (plugin_utils/locks.py): Python 3.8 has no reader of TOML.
_TEXT = r'("(?:[^"\\]|\\.)*")'
_WHEEL = re.compile(rf"^wheels = \[.*\burl = {_TEXT}.*\bsha256 = {_TEXT}")
_FIELD = re.compile(rf"^(name|version) = {_TEXT}$")


def environment(name: str, directory: str, lock_text: str, lock_sha256: str, python: str | None) -> Row:
    """What an environment is made of: every wheel of its lock with its SHA-256 and where it is published, and Python.

    :param directory: name of its versioned directory.
    :param python: full version of its interpreter.
    """
    components = [_of_wheel(wheel) for wheel in _wheels(lock_text)]
    if python is not None:
        components.append(_component("application", "cpython", python, f"pkg:generic/cpython@{python}"))
    subject = {
        "type": "application",
        "bom-ref": "environment",
        "name": name,
        "version": directory,
        "properties": [{"name": "gpufleet:lock:sha256", "value": lock_sha256}],
    }
    return _document(subject, components)


def python_version(path: str) -> str | None:
    """The full version of an environment's interpreter, as pyvenv.cfg has it."""
    try:
        with open(os.path.join(path, "pyvenv.cfg"), encoding="utf-8") as handle:
            found = re.search(r"^version(?:_info)? *= *(3\.\d+\.\d+)", handle.read(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def nvidia(state_dir: str, root: str = "/") -> Row | None:
    """What the NVIDIA roles brought, by their receipts; None where there are none."""
    found = {role: receipts.read_json(receipts.receipt_path(state_dir, role)) for role in NVIDIA_ROLES}
    known = {role: receipt for role, receipt in found.items() if receipt and receipt.get("digest") != "removed"}
    if not known:
        return None
    system = _system(root)
    by_reference: dict[str, Row] = {}
    for role, receipt in known.items():
        for component in [*_packages(receipt, system), *_without_packages(role, receipt)]:
            mark = {"name": "gpufleet:role", "value": role}
            by_reference.setdefault(component["bom-ref"], {**component, "properties": []})["properties"].append(mark)
    subject = {"type": "application", "bom-ref": "node", "name": "nvidia", "version": "-".join(system[:2])}
    return _document(subject, by_reference.values())


def write(path: str, document: Row) -> None:
    """Write a document, unless it stands there already."""
    if receipts.read_json(path) != document:
        receipts.write_json(path, document)


def refresh(state_dir: str, root: str = "/") -> None:
    """Have the bill of the NVIDIA roles say what their receipts say now."""
    path, document = os.path.join(state_dir, NVIDIA_FILE), nvidia(state_dir, root)
    if document is not None:
        write(path, document)
    elif os.path.exists(path):
        os.unlink(path)


def _document(subject: Row, components: Iterable[Row]) -> Row:
    ordered = sorted(components, key=lambda component: str(component["bom-ref"]))
    content = {
        "metadata": {"component": subject, "tools": {"components": [TOOL]}},
        "components": ordered,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": [each["bom-ref"] for each in ordered]}],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "serialNumber": f"urn:uuid:{serial}",
        **content,
    }


def _component(kind: str, name: str, version: str, purl: str) -> Row:
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _wheels(lock_text: str) -> list[dict[str, str]]:
    wheels: list[dict[str, str]] = []
    for line in lock_text.splitlines():
        field, wheel = _FIELD.match(line), _WHEEL.match(line)
        if line == "[[packages]]":
            wheels.append({})
        elif field and wheels:
            wheels[-1][field.group(1)] = json.loads(field.group(2))
        elif wheel and wheels:
            wheels[-1].update(url=json.loads(wheel.group(1)), sha256=json.loads(wheel.group(2)))
    return wheels


def _of_wheel(wheel: dict[str, str]) -> Row:
    name, version = wheel["name"], wheel["version"]
    made = _component("library", name, version, f"pkg:pypi/{name}@{_quoted(version)}")
    if "sha256" in wheel:
        made["hashes"] = [{"alg": "SHA-256", "content": wheel["sha256"]}]
        made["externalReferences"] = [{"type": "distribution", "url": wheel["url"]}]
    return made


def _packages(receipt: Row, system: tuple[str, str, str]) -> list[Row]:
    distribution, release, kind = system
    there = {**receipt.get("versions", {}), **receipt.get("packages", {})}
    return [
        _component(
            "library",
            name,
            version,
            f"pkg:{kind}/{distribution}/{_quoted(name)}@{_quoted(version)}?distro={distribution}-{release}",
        )
        for name, version in there.items()
        if version
    ]


def _without_packages(role: str, receipt: Row) -> list[Row]:
    """What no package manager knows: NVIDIA's installers, and what was put together from wheels."""
    stage = receipt.get("stage") or {}
    made = []
    if role == "nvidia_driver" and stage.get("source") == "runfile":
        made.append(("device-driver", "nvidia-driver", stage["version"]))
    if role == "cuda_toolkit":
        for each in stage.get("toolkits", []):
            if each.get("source") in ("wheels", "runfile"):
                made.append(("application", "cuda-toolkit", each.get("full_version") or each["version"]))
    if role == "cudnn" and not receipt.get("packages"):
        for path in receipt.get("trees", {}):
            version, _cuda, major = os.path.basename(path).partition("-cuda")
            if major:
                made.append(("library", f"cudnn-cuda{major}", version))
    return [
        _component(kind, name, version, f"pkg:generic/nvidia/{name}@{_quoted(version)}") for kind, name, version in made
    ]


def _system(root: str) -> tuple[str, str, str]:
    """The distribution's id and release, and the kind of its packages."""
    try:
        with open(os.path.join(root, "etc/os-release"), encoding="utf-8") as handle:
            told = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?([^\"'\n]*)", handle.read(), re.MULTILINE))
    except OSError:
        told = {}
    kind = "deb" if os.path.isdir(os.path.join(root, "var/lib/dpkg")) else "rpm"
    return told.get("ID", "linux"), told.get("VERSION_ID", "unknown"), kind


def _quoted(text: str) -> str:
    return quote(text, safe="")
