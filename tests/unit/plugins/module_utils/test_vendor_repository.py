# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository made here with real keys: what is trusted, what is refused, and that a refusal leaves the node as it was."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import openpgp, vendor_repository
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.vendor_repository import Wish

TOOLS = all(shutil.which(tool) for tool in ("gpg", "apt-get", "apt-ftparchive", "dpkg-deb"))
pytestmark = pytest.mark.skipif(not TOOLS, reason="gpg, apt or apt-utils is not installed")
LIST = "/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list"


def gpg(home, *arguments):
    command = ["gpg", "--homedir", str(home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]
    return subprocess.run([*command, "--passphrase", "", *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Throw-away keys: the vendor's, one that expired, a stranger's and a retired one."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    for name in ("vendor", "stranger", "retired"):
        gpg(home, "--quick-gen-key", f"{name}@example.org", "ed25519", "sign", "never")
    gpg(home, "--faked-system-time", "20200101T000000!", "--quick-gen-key", "old@example.org", "ed25519", "sign", "1y")
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def exported(home, name):
    return gpg(home, "--armor", "--export", f"{name}@example.org")


def fingerprint(home, name):
    return openpgp.keys(exported(home, name))[0].fingerprint


@pytest.fixture
def served(tmp_path):
    """An empty folder with its address on the loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def publish(folder, home, signer="vendor"):
    """A flat repository with one small package, as NVIDIA's are."""
    package = folder / "package" / "DEBIAN"
    package.mkdir(parents=True)
    text = (
        "Package: stand-in\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: stand-in\n"
    )
    (package / "control").write_text(text)
    subprocess.run(
        ["dpkg-deb", "--build", str(package.parent), str(folder / "stand-in_1_all.deb")],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(package.parent)
    for name, command in (("Packages", ["packages", "."]), ("Release", ["release", "."])):
        done = subprocess.run(["apt-ftparchive", *command], cwd=folder, check=True, capture_output=True)
        (folder / name).write_bytes(done.stdout)
    if signer:
        gpg(
            home, "-u", f"{signer}@example.org", "--clearsign", "-o", str(folder / "InRelease"), str(folder / "Release")
        )


def wish(home, url, name="vendor", **more):
    return Wish(
        "apt", url, f"{url}/key.pub", fingerprint(home, name), more.get("addresses", []), more.get("retired", [])
    )


def refresh(root, this):
    """Real apt, with everything it reads and writes below ``root``."""
    for folder in ("var/lib/apt/lists/partial", "var/cache/apt", "var/lib/dpkg", "etc/apt/preferences.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    # apt takes the key's path as it stands in the entry, not below Dir.
    source = root / this.source_file.lstrip("/")
    copy = root / "probe.sources"
    copy.write_text(source.read_text().replace(this.key_file, str(root) + this.key_file))
    options = [
        f"Dir={root}",
        f"Dir::Etc::SourceList={copy}",
        "Dir::Etc::SourceParts=/dev/null",
        "APT::Sandbox::User=root",
    ]
    command = ["apt-get", "update", "-q", *(part for option in options for part in ("-o", option))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    vendor_repository.judge(this.url, done.returncode, done.stdout + done.stderr)


def fetch(url):
    import urllib.request

    with urllib.request.urlopen(url) as answer:
        return answer.read()


def converge(root, this):
    changes = vendor_repository.plan(this, fetch, str(root))
    if changes:
        vendor_repository.carry_out(changes, lambda: refresh(root, this), str(root))
    return changes


def snapshot(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(Path(root).rglob("etc/**/*"))
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "etc/apt/sources.list.d").mkdir(parents=True)
    return folder


def test_a_signed_repository_is_taken_once(served, root, keys):
    folder, url = served
    publish(folder, keys)
    (folder / "key.pub").write_bytes(exported(keys, "vendor"))
    changes = converge(root, wish(keys, url))
    assert [change.path for change in changes] == [
        "/etc/apt/keyrings/gpufleet-nvidia.gpg",
        "/etc/apt/sources.list.d/gpufleet-nvidia.sources",
    ]
    assert list((root / "var/lib/apt/lists").glob("*Packages*")), "apt read the repository"
    (folder / "key.pub").unlink()  # the second time nothing is fetched
    assert converge(root, wish(keys, url)) == []


@pytest.mark.parametrize(
    ("signer", "served_key", "pinned", "code"),
    [
        ("vendor", "stranger", "vendor", "GF-KEY-WRONG"),
        ("vendor", "old", "old", "GF-KEY-EXPIRED"),
        ("stranger", "vendor", "vendor", "GF-REPOSITORY-UNTRUSTED"),
        ("", "vendor", "vendor", "GF-REPOSITORY-UNTRUSTED"),
    ],
    ids=["wrong-key", "expired-key", "signed-by-a-stranger", "unsigned"],
)
def test_what_is_not_to_be_trusted_leaves_the_node_as_it_was(served, root, keys, signer, served_key, pinned, code):
    folder, url = served
    publish(folder, keys, signer)
    (folder / "key.pub").write_bytes(exported(keys, served_key))
    (root / LIST.lstrip("/")).write_text(f"deb {url}/ /\n")
    before = snapshot(root)
    with pytest.raises(GpufleetError) as caught:
        converge(root, wish(keys, url, pinned))
    assert caught.value.code == code
    assert snapshot(root) == before
    assert not (root / vendor_repository.NOTE).exists()


def test_a_second_key_beside_the_pinned_one_is_refused(keys):
    both = exported(keys, "vendor") + exported(keys, "stranger")
    with pytest.raises(GpufleetError) as caught:
        vendor_repository.check_key(both, fingerprint(keys, "vendor"), "x")
    assert caught.value.code == "GF-KEY-WRONG" and fingerprint(keys, "stranger") in caught.value.message


def test_the_right_short_id_is_not_enough(keys):
    full = fingerprint(keys, "vendor")
    other = "0" * 24 + full[-16:]
    with pytest.raises(GpufleetError) as caught:
        vendor_repository.check_key(exported(keys, "vendor"), other, "x")
    assert caught.value.code == "GF-KEY-WRONG"


def test_a_dead_mirror_leaves_the_node_as_it_was(served, root, keys):
    folder, url = served
    publish(folder, keys)
    (folder / "key.pub").write_bytes(exported(keys, "vendor"))
    (folder / "Packages").unlink()  # cut off halfway: the index is promised and not there
    with pytest.raises(GpufleetError) as caught:
        converge(root, wish(keys, url))
    assert caught.value.code == "GF-REPOSITORY-UNREACHABLE"
    assert snapshot(root) == {}


def test_a_damaged_index_is_not_trusted(served, root, keys):
    folder, url = served
    publish(folder, keys)
    (folder / "key.pub").write_bytes(exported(keys, "vendor"))
    text = (folder / "Packages").read_text()
    (folder / "Packages").write_text(text.replace("stand-in", "stand-on"))
    with pytest.raises(GpufleetError) as caught:
        converge(root, wish(keys, url))
    assert caught.value.code == "GF-REPOSITORY-UNTRUSTED"


def test_what_stood_there_before_goes_and_comes_back(served, root, keys):
    folder, url = served
    publish(folder, keys)
    (folder / "key.pub").write_bytes(exported(keys, "vendor"))
    trusted = root / "etc/apt/trusted.gpg.d"
    trusted.mkdir()
    (trusted / "cuda.gpg").write_bytes(openpgp.binary(exported(keys, "retired")))
    both = openpgp.binary(exported(keys, "stranger") + exported(keys, "retired"))
    (trusted / "several.gpg").write_bytes(both)
    (root / LIST.lstrip("/")).write_text("deb https://public.example.org/cuda/ /\n")
    before = snapshot(root)
    this = wish(keys, url, addresses=["https://public.example.org/cuda"], retired=[fingerprint(keys, "retired")])
    converge(root, this)
    assert not (root / LIST.lstrip("/")).exists()
    assert not (trusted / "cuda.gpg").exists()
    left = openpgp.keys((trusted / "several.gpg").read_bytes())
    assert [key.fingerprint for key in left] == [fingerprint(keys, "stranger")]
    vendor_repository.restore(str(root))
    assert snapshot(root) == before


def test_a_file_that_somebody_changed_since_is_not_put_back(served, root, keys):
    folder, url = served
    publish(folder, keys)
    (folder / "key.pub").write_bytes(exported(keys, "vendor"))
    (root / LIST.lstrip("/")).write_text(f"deb {url}/ /\n")
    converge(root, wish(keys, url))
    (root / LIST.lstrip("/")).write_text("# the site's own\n")
    vendor_repository.restore(str(root))
    assert (root / LIST.lstrip("/")).read_text() == "# the site's own\n"


def test_dnf_gets_the_armored_key_and_a_checked_entry(root, keys):
    this = Wish(
        "dnf", "https://x.example.org/rhel9", "https://x.example.org/rhel9/K", fingerprint(keys, "vendor"), [], []
    )
    changes = vendor_repository.plan(this, lambda _url: exported(keys, "vendor"), str(root))
    vendor_repository.carry_out(changes, lambda: None, str(root))
    entry = (root / "etc/yum.repos.d/gpufleet-nvidia.repo").read_text()
    assert "gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-gpufleet-nvidia\n" in entry
    assert (root / "etc/pki/rpm-gpg/RPM-GPG-KEY-gpufleet-nvidia").read_bytes() == exported(keys, "vendor")


def test_a_dry_run_fetches_and_writes_nothing(root, keys):
    this = wish(keys, "http://127.0.0.1:9")
    changes = vendor_repository.plan(this, fetch, str(root), dry=True)
    assert len(changes) == 2 and snapshot(root) == {}
