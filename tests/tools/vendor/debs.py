"""Packages and indexes of the apt family."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from .contents import STUB, Package, put, unfold
from .keys import Keys, run

# Our facts tell by the maintainer whose a driver is.
OF_NVIDIA = "stand-in <stand-in@nvidia.com.example.invalid>"


def build(out: Path, package: Package, maintainer: str = "stand-in <stand-in@example.invalid>") -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        full = f"{package.epoch}:" * bool(package.epoch) + f"{package.version}-{package.revision}"
        unfold(tree, package)
        needs = f"Depends: {', '.join(package.needs)}\n" if package.needs else ""
        put(
            tree / "DEBIAN/control",
            f"Package: {package.name}\nVersion: {full}\nArchitecture: amd64\n"
            f"Section: {package.section}\nMaintainer: {maintainer}\n"
            f"{needs}{package.fields}Description: {package.name}\n {STUB}\n",
        )
        if package.built:
            put(tree / "DEBIAN/triggers", "activate-noawait ldconfig\n")
        for name, text in package.scripts.items():
            put(tree / "DEBIAN" / name, text)
        file = out / f"{package.name}_{package.version}-{package.revision}_amd64.deb"
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(file))


def flat(where: Path, packages: Iterable[Package], keys: Keys, signer: str | None, *options: str) -> None:
    """A repository without suites, as NVIDIA's are."""
    for package in packages:
        build(where, package, OF_NVIDIA)
    (where / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=where), encoding="utf-8")
    release(where, where, keys, signer, *options, Origin="NVIDIA")


def archive(root: Path, suites: Iterable[str], packages: Iterable[Package], keys: Keys, signer: str) -> None:
    """A distribution's archive: a pool, and one suite of the name with everything in it; the others are empty."""
    components: dict[str, list[Package]] = {"main": [], "restricted": [], "universe": [], "multiverse": []}
    for package in packages:
        components[package.section.partition("/")[0] if "/" in package.section else "main"].append(package)
    first, *others = suites
    for component, members in components.items():
        pool = root / "pool" / first / component
        pool.mkdir(parents=True, exist_ok=True)
        for package in members:
            build(pool, package)
        text = run("apt-ftparchive", "packages", f"pool/{first}/{component}", cwd=root)
        for suite in (first, *others):
            put(root / "dists" / suite / component / "binary-amd64/Packages", text if suite == first else "")
    for suite in (first, *others):
        fields = {"Origin": "Ubuntu", "Suite": suite, "Codename": first, "Components": " ".join(components)}
        release(root / "dists" / suite, root / "dists" / suite, keys, signer, Architectures="amd64", **fields)


def release(where: Path, base: Path, keys: Keys, signer: str | None, *options: str, **fields: str) -> None:
    said = [word for key, value in fields.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
    (where / "Release").write_text(run("apt-ftparchive", *said, "release", ".", cwd=base), encoding="utf-8")
    if signer:
        keys.gpg(*options, "-u", signer, "--clearsign", "-o", str(where / "InRelease"), str(where / "Release"))
