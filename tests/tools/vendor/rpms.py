"""Packages, indexes and module streams of the dnf family."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from .contents import STUB, Package, all_links, unfold
from .keys import Keys, run

# Directories that a package owns with all that is in them.
_OWNED = ("usr/local/cuda-", "usr/src/nvidia-")
_PREAMBLE = """\
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%global _build_id_links none
Name: stand-in
Version: 1
Release: 1
Summary: {stub}
License: none
%description
{stub}
%install
cp -a {tree}/. %{{buildroot}}/
"""


def _section(package: Package) -> str:
    """What one package adds to a spec."""
    here = {*package.files, *package.built, *all_links(package)}
    folders = {str(parent) for name in here for parent in Path(name).parents if str(parent).startswith(_OWNED)}
    lines = [
        f"%package -n {package.name}",
        f"Version: {package.version}",
        f"Release: {package.revision}",
        *([f"Epoch: {package.epoch}"] if package.epoch else []),
        f"Summary: {package.name}, a stand-in",
        "AutoReqProv: no",
        *(f"Requires: {need}" for need in package.needs),
        package.fields.rstrip(),
        f"%description -n {package.name}",
        STUB,
        *(line for name, text in package.scripts.items() for line in (f"%{name} -n {package.name}", text)),
        f"%files -n {package.name}",
        *(f"%dir /{name}" for name in sorted(folders)),
        *(f"/{name}" for name in sorted(here)),
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _batches(packages: Iterable[Package]) -> list[list[Package]]:
    """As few builds as can be: within one, no two packages share a name or a file."""
    batches: list[tuple[set[str], list[Package]]] = []
    for package in packages:
        taken = {package.name, *package.files, *package.built, *all_links(package)}
        fitting = next((batch for batch in batches if not batch[0] & taken), None)
        if fitting is None:
            fitting = (set(), [])
            batches.append(fitting)
        fitting[0].update(taken)
        fitting[1].append(package)
    return [members for _taken, members in batches]


def build(out: Path, packages: Iterable[Package]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for batch in _batches(packages):
        with tempfile.TemporaryDirectory() as folder:
            top, tree = Path(folder), Path(folder) / "tree"
            tree.mkdir()
            for package in batch:
                unfold(tree, package)
            spec = _PREAMBLE.format(stub=STUB, tree=tree) + "".join(_section(package) for package in batch)
            (top / "all.spec").write_text(spec, encoding="utf-8")
            settings = {
                "_topdir": folder,
                "_rpmdir": out,
                "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            }
            said = [word for key, value in settings.items() for word in ("--define", f"{key} {value}")]
            run("rpmbuild", "-bb", "--quiet", "--target", "x86_64", *said, str(top / "all.spec"))


def sign_packages(where: Path, keys: Keys, signer: str, *options: str) -> None:
    extra = " ".join(options)
    settings = {
        "__gpg": shutil.which("gpg"),
        "_gpg_name": signer,
        "_gpg_path": keys.home,
        "_gpg_sign_cmd_extra_args": extra or "%{nil}",
    }
    said = [word for key, value in settings.items() for word in ("--define", f"{key} {value}")]
    run("rpmsign", "--addsign", *said, *(str(path) for path in sorted(where.glob("*.rpm"))))


def index(where: Path, keys: Keys, signer: str | None, *options: str, modules: str = "") -> None:
    shutil.rmtree(where / "repodata", ignore_errors=True)
    run("createrepo_c", "--quiet", "--no-database", str(where))
    if modules:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "modules.yaml"
            path.write_text(modules, encoding="utf-8")
            run("modifyrepo_c", "--mdtype=modules", str(path), str(where / "repodata"))
    if signer:
        index_file = where / "repodata/repomd.xml"
        keys.gpg(*options, "-u", signer, "--armor", "--detach-sign", "-o", f"{index_file}.asc", str(index_file))


def stream(name: str, packages: Iterable[Package], profile: Iterable[str], number: int) -> str:
    """The description of one module stream of the driver."""
    data = {
        "document": "modulemd",
        "version": 2,
        "data": {
            "name": "nvidia-driver",
            "stream": name,
            "version": number,
            "context": "standin",
            "arch": "x86_64",
            "summary": f"Driver of {name}, a stand-in",
            "description": STUB,
            "license": {"module": ["MIT"]},
            "profiles": {
                "default": {"rpms": sorted(profile)},
                "fm": {"rpms": [*sorted(profile), "nvidia-fabric-manager"]},
            },
            "artifacts": {
                "rpms": sorted(
                    f"{each.name}-{each.epoch or 0}:{each.version}-{each.revision}.x86_64" for each in packages
                )
            },
        },
    }
    return yaml.safe_dump(data, explicit_start=True, explicit_end=True, sort_keys=False)


def default_stream(name: str) -> str:
    data = {"module": "nvidia-driver", "stream": name, "profiles": {name: ["default"]}}
    document = {"document": "modulemd-defaults", "version": 1, "data": data}
    return yaml.safe_dump(document, explicit_start=True, explicit_end=True, sort_keys=False)
