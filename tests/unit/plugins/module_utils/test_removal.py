"""Removal on a made-up node: all that is ours goes, what is not stays, and what is half done is finished."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    login_environment,
    openpgp,
    receipts,
    removal,
    removal_paths,
    removal_plan,
    removal_wish,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_wish import STAGES, Plan, Wish
from ansible_collections.gpufleet.stack.plugins.module_utils.shell_syntax import SYNTAXES

PREFIX = "/opt/gpufleet"
ENVIRONMENT = PREFIX + "/envs/default/2.0.1-cpu"
SOURCES = "/etc/apt/sources.list.d/gpufleet-components.sources"
BLACKLIST = "/etc/modprobe.d/gpufleet-nvidia.conf"
PROFILE = "/etc/profile.d/gpufleet-pytorch.sh"
LINK = "/usr/local/cuda"
TOOLKIT = PREFIX + "/cuda/11.8"
SETTINGS = "/etc/nginx/conf.d/gpufleet-wheelhouse.conf"
SERVED = "/var/lib/gpufleet-wheelhouse"


class Packages:
    """The node's packages: `needs` says why some have to stay."""

    def __init__(self, node: Node, **needs: str) -> None:
        self.node = node
        self.needs = needs
        self.automatic: list[str] = []
        self.distrusted: list[str] = []

    def present(self, names: Iterable[str]) -> dict[str, str]:
        return {name: "1" for name in names if name in self.node.packages}

    def needed(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.needs[name] for name in names if name in self.needs}

    def would_take(self, names: list[str]) -> set[str]:
        return set(names)

    def purge(self, names: list[str]) -> None:
        self.node.set_packages(*(set(self.node.packages) - set(names)))

    def mark_automatic(self, names: list[str]) -> None:
        self.automatic += names

    def distrust(self, fingerprints: list[str]) -> None:
        self.distrusted += fingerprints


class Node:
    """A root directory with what the roles leave, written as they write it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages: tuple[str, ...] = ()
        self.automatic: tuple[str, ...] = ()
        self.commands: list[list[str]] = []
        for folder in ("etc/profile.d", "etc/zsh", "etc/modprobe.d", "etc/apt/sources.list.d", "usr/local", "opt"):
            (root / folder).mkdir(parents=True)
        (root / "var/lib").mkdir(parents=True)
        (root / "etc/zsh/zprofile").write_text("# the site's own\n")
        self.set_packages("base", "python")

    def set_packages(self, *names: str, automatic: tuple[str, ...] | None = None) -> None:
        self.packages = tuple(sorted(names))
        self.automatic = automatic = tuple(set(names) & set(self.automatic if automatic is None else automatic))
        for path, text in (
            ("var/lib/dpkg/status", "Package: {}\nStatus: install ok installed\nVersion: 1\n\n"),
            ("var/lib/apt/extended_states", "Package: {}\nAuto-Installed: 1\n\n"),
        ):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text("".join(map(text.format, names if "dpkg" in path else automatic)))

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str = "x\n") -> str:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)
        return path

    def link(self, path: str, target: str) -> str:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).symlink_to(target)
        return path

    def environment(self, path: str, *packages: str, complete: bool = True) -> str:
        for name in ("torch", *packages):
            self.write(f"{path}/lib/python3.11/site-packages/{name}-1.0.dist-info/RECORD")
        self.write(f"{path}/pylock.toml", '[[packages]]\nname = "torch"\nversion = "1.0"\n')
        self.write(f"{path}/.complete" if complete else f"{path}/.gpufleet-building", "{}\n")
        return path

    def receipt(self, role: str, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "schema": 1,
            "role": role,
            "digest": role,
            "packages": dict.fromkeys(more.pop("packages", []), "1"),
            "files": {path: receipts.file_digest(str(self.at(path))) for path in more.pop("files", [])},
            "links": {path: receipts.link_target(str(self.at(path))) for path in more.pop("links", [])},
            "trees": {path: receipts.tree_state(str(self.at(path))) for path in more.pop("trees", [])},
            "added_packages": [],
            **more,
        }
        receipts.write_json(self.receipt_path(role), made)
        return made

    def receipt_path(self, role: str) -> str:
        return receipts.receipt_path(str(self.root) + receipts.STATE_DIR, role)

    def listing(self) -> set[str]:
        return {
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, folders, names in os.walk(self.root)
            for name in (*folders, *names)
        }

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        return 0, "", ""

    def plan(self, *stages: str, packages: Packages | None = None, **options: Any) -> Plan:
        wish = Wish(
            stages or STAGES, PREFIX, options.pop("cache_dir", PREFIX + "/cache"), root=str(self.root), **options
        )
        return removal_plan.make_plan(wish, packages or Packages(self), "6.1.0-9-amd64")

    def remove(self, *stages: str, packages: Packages | None = None, **options: Any) -> Plan:
        packages = packages or Packages(self)
        plan = self.plan(*stages, packages=packages, **options)
        removal.refuse(plan, packages)
        removal.carry_out(plan, packages, self.run)
        removal.forget(plan)
        return plan


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def full(node: Node) -> Node:
    """A node with every stage on it."""
    driver_files = [node.write(BLACKLIST), node.write(SOURCES)]
    node.set_packages("base", "python", "driver", "nvcc", "venv", "library", automatic=("library",))
    node.receipt(
        "nvidia_driver",
        packages=["driver"],
        files=driver_files,
        added_packages=["driver", "library"],
        asked_packages=["driver"],
    )
    node.write(TOOLKIT + "/version.json")
    node.receipt(
        "cuda_toolkit",
        packages=["nvcc"],
        files=[SOURCES],
        links=[node.link(LINK, TOOLKIT)],
        trees=[TOOLKIT],
        added_packages=["nvcc"],
        asked_packages=["nvcc"],
    )
    node.write(PREFIX + "/cudnn/8.9-cuda11/lib/libcudnn.so.8")
    node.receipt("cudnn", trees=[PREFIX + "/cudnn/8.9-cuda11"])
    managed = PREFIX + "/python/3.11.18-20261110"
    node.write(managed + "/cpython/bin/python3.11")
    node.write(managed + ".gpufleet-old/cpython/bin/python3.11")
    node.write(PREFIX + "/python/.lock")
    named = {"packages": ["venv"], "added_packages": ["venv"], "asked_packages": ["python", "venv"]}
    node.receipt("python", trees=[managed], **named)
    node.environment(ENVIRONMENT)
    node.environment(PREFIX + "/envs/default/1.13.1-cpu")
    node.write(PREFIX + "/envs/default/.lock")
    node.write(PREFIX + "/tools/uv-1/uv")
    node.write(PREFIX + "/cache/wheel")
    login_environment.apply(
        "gpufleet-pytorch", dict.fromkeys(SYNTAXES, "# Written by gpufleet.stack\n"), str(node.root)
    )
    node.receipt(
        "pytorch",
        files=[PROFILE, "/etc/zsh/zprofile"],
        links=[node.link(PREFIX + "/envs/default/current", "2.0.1-cpu")],
        trees=[ENVIRONMENT],
    )
    node.write(f"{SERVED}/{'0' * 64}/torch-2.0.1-py3-none-any.whl")
    node.receipt(
        "wheelhouse",
        files=[node.write(SETTINGS)],
        begun={"trees": [SERVED]},
        directories=["/etc/nginx/conf.d", "/etc/nginx"],
    )
    node.write("/var/lib/gpufleet/verdict.json", "{}\n")
    node.write("/var/lib/gpufleet/verdicts/2026-03-02T101112Z.json", "{}\n")
    node.receipt(
        "verify", files=[node.write(PREFIX + "/libexec/gpufleet_verify.pyz"), "/var/lib/gpufleet/verdict.json"]
    )
    return node


def test_a_node_that_never_had_anything_has_nothing_to_remove(node: Node) -> None:
    before = node.listing()
    plan = node.remove()
    assert (plan.lines(), plan.kept, plan.stages) == ([], {}, [])
    assert node.listing() == before


def test_everything_goes_and_a_second_run_finds_nothing(full: Node, tmp_path: Path) -> None:
    bare = Node(tmp_path / "bare").listing()
    full.write("/var/lib/gpufleet/of-another-part.json")

    plan = full.remove()

    assert plan.stages == list(STAGES)
    assert plan.kept == {}
    assert {path for path in full.listing() if not path.startswith("bare")} == bare
    assert full.at("/etc/zsh/zprofile").read_text() == "# the site's own\n"
    assert full.packages == ("base", "python")
    assert full.plan().lines() == []


def test_what_a_check_of_the_fleet_left_goes_too(full: Node) -> None:
    # An earlier release's script was a file of Python.
    scripts = (PREFIX + "/libexec/gpufleet_fleet.pyz", PREFIX + "/libexec/gpufleet_fleet.py")
    left = (*scripts, "/var/lib/gpufleet/fleet-verdict.json")
    for path in left:
        full.write(path)
    assert full.remove("cudnn").kept == {}
    assert all(full.at(path).exists() for path in left)
    full.remove("verify")
    assert not any(full.at(path).exists() for path in (*left, PREFIX + "/libexec"))


def test_a_dry_look_changes_nothing(full: Node) -> None:
    before = full.listing()
    assert len(full.plan().lines()) > len(STAGES)
    assert full.listing() == before


@pytest.mark.parametrize(
    ("path", "stage"),
    [(BLACKLIST, "nvidia_driver"), (PROFILE, "pytorch"), (PREFIX + "/libexec/gpufleet_verify.pyz", "verify")],
)
def test_an_edited_file_stays_until_it_is_asked_for(full: Node, path: str, stage: str) -> None:
    full.at(path).write_text("mine\n")

    first = full.remove()

    assert "was edited" in first.kept[path]
    assert full.at(path).read_text() == "mine\n"
    second = full.remove()
    assert (second.lines(), second.stages) == ([], [stage])
    assert path in second.kept
    full.remove(edited=True)
    assert not full.at(path).exists()
    assert not full.at("/var/lib/gpufleet").exists()


def test_a_changed_environment_stays_with_its_link(full: Node) -> None:
    full.write(ENVIRONMENT + "/lib/python3.11/site-packages/mine.py")
    plan = full.remove()
    assert "was changed" in plan.kept[ENVIRONMENT]
    assert plan.kept[PREFIX + "/envs/default/current"] == "what it leads to stays"
    assert full.at(PREFIX + "/envs/default/current/.complete").exists()
    assert not full.at(PREFIX + "/envs/default/1.13.1-cpu").exists()
    assert full.plan().lines() == []
    full.remove(edited=True)
    assert not full.at(PREFIX).exists()


def test_a_former_environment_with_packages_of_a_user_stays(full: Node) -> None:
    former = PREFIX + "/envs/default/1.13.1-cpu"
    full.environment(former, "mine")
    assert full.remove().kept[former].startswith("mine added since")
    assert full.plan().lines() == []
    full.remove(edited=True)
    assert not full.at(PREFIX).exists()


def test_what_killed_runs_left_goes_and_foreign_directories_stay(full: Node) -> None:
    full.environment(PREFIX + "/envs/other/2.0", complete=False)
    full.write(PREFIX + "/envs/default/.building-x/file")
    full.write(PREFIX + "/cuda/12.0.gpufleet-new/file")
    full.write(PREFIX + "/envs/default/notes/mine.txt")
    plan = full.remove()
    assert plan.kept == {PREFIX + "/envs/default/notes": "it is no environment of this collection"}
    assert os.listdir(full.at(PREFIX)) == ["envs"]
    assert os.listdir(full.at(PREFIX + "/envs/default")) == ["notes"]


def test_a_removal_that_was_cut_off_goes_on(full: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an environment would look changed by somebody; it was renamed first, so that it does not."""
    once = removal.trees.remove

    def cut_off(path: str) -> None:
        if os.path.basename(path) == ".building-2.0.1-cpu" and os.path.isdir(path):
            once(path + "/pylock.toml")
            raise KeyboardInterrupt
        once(path)

    monkeypatch.setattr(removal.trees, "remove", cut_off)
    with pytest.raises(KeyboardInterrupt):
        full.remove()
    monkeypatch.setattr(removal.trees, "remove", once)

    assert full.remove().kept == {}
    assert not full.at(PREFIX).exists()


def test_a_cache_host_serves_no_longer(node: Node) -> None:
    node.write(f"{SERVED}/simple/index.html")
    node.write("/run/systemd/system/x")
    node.write("/etc/nginx/nginx.conf")
    served = {"files": [node.write(SETTINGS)], "begun": {"trees": [SERVED]}, "directories": ["/var/lib/gpufleet"]}
    node.receipt("wheelhouse", **served)

    assert node.plan("pytorch").lines() == []
    plan = node.remove("wheelhouse")

    assert (plan.trees, plan.files, plan.kept) == ([SERVED], [SETTINGS], {})
    assert not node.at(SERVED).exists() and not node.at(SETTINGS).exists()
    # A web server that was there before goes on without our part.
    assert node.at("/etc/nginx/nginx.conf").exists()
    assert node.commands == [["systemctl", "try-reload-or-restart", "nginx"]]
    assert node.plan().lines() == []


def test_a_web_server_that_came_with_us_goes(node: Node) -> None:
    node.write("/run/systemd/system/x")
    node.set_packages("base", "python", "nginx")
    named = {"packages": ["nginx"], "added_packages": ["nginx"], "asked_packages": ["nginx"]}
    node.receipt("wheelhouse", files=[node.write(SETTINGS)], begun={"trees": [SERVED]}, **named)
    node.remove()
    assert (node.packages, node.commands) == (("base", "python"), [])


def test_a_directory_of_wheels_that_was_there_before_stays(node: Node) -> None:
    node.write(f"{SERVED}/file")
    node.receipt("wheelhouse", begun={"trees": [SERVED]}, before={"trees": {SERVED: None}})
    assert node.remove().kept == {SERVED: "it was there before this collection"}
    assert node.at(f"{SERVED}/file").exists()


def test_a_link_that_somebody_turned_stays(full: Node) -> None:
    full.at(LINK).unlink()
    full.link(LINK, "/usr/local/cuda-12.9")
    assert "cuda-12.9" in full.remove().kept[LINK]
    assert os.readlink(full.at(LINK)) == "/usr/local/cuda-12.9"
    assert not full.at("/var/lib/gpufleet").exists()


def test_a_link_leads_again_where_it_led_before(full: Node) -> None:
    full.receipt(
        "cuda_toolkit",
        links=[LINK],
        trees=[TOOLKIT],
        before={"links": {LINK: "/usr/local/cuda-9"}, "files": {}, "trees": {}},
    )
    full.remove()
    assert os.readlink(full.at(LINK)) == "/usr/local/cuda-9"
    assert full.plan().lines() == []


@pytest.mark.parametrize("folder", removal_paths.ALTERNATIVES)
def test_the_alternatives_system_keeps_its_link_and_forgets_our_toolkit(full: Node, folder: str) -> None:
    full.at(LINK).unlink()
    full.link(LINK, "/etc/alternatives/cuda")
    full.write(folder + "/cuda", f"manual\n{LINK}\n\n{TOOLKIT}\n1\n/usr/local/cuda-12.9\n129\n")
    full.receipt("cuda_toolkit", links=[LINK], trees=[TOOLKIT])
    full.remove()
    assert full.commands == [["update-alternatives", "--remove", "cuda", TOOLKIT]]
    assert full.at(LINK).is_symlink()
    assert not full.at(TOOLKIT).exists()
    assert full.plan().lines() == []


def test_what_was_there_before_stays(full: Node) -> None:
    before = {"links": {}, "files": {BLACKLIST: None}, "trees": {}}
    full.receipt("nvidia_driver", files=[BLACKLIST], before=before)
    plan = full.remove()
    assert plan.kept == {BLACKLIST: "it was there before this collection"}
    assert not removal.changes_module_settings(plan)
    assert full.at(BLACKLIST).exists()
    assert not full.at("/var/lib/gpufleet").exists()


def test_one_stage_goes_and_what_others_have_stays(full: Node) -> None:
    plan = full.remove("nvidia_driver")
    assert removal.changes_module_settings(plan)
    assert full.at(SOURCES).exists()
    assert "driver" not in full.packages
    assert "nvcc" in full.packages
    assert not os.path.exists(full.receipt_path("nvidia_driver"))
    assert full.at("/var/lib/gpufleet/verdict.json").exists()
    full.remove("cuda_toolkit")
    assert not full.at(SOURCES).exists()
    assert not full.at(LINK).is_symlink()


def test_the_proof_goes_with_all_its_verdicts(full: Node) -> None:
    full.remove("verify")
    for gone in ("/var/lib/gpufleet/verdict.json", "/var/lib/gpufleet/verdicts", PREFIX + "/libexec"):
        assert not full.at(gone).exists()
    assert full.at("/var/lib/gpufleet/receipts").exists()


def test_of_a_node_that_never_passed_the_programs_go_too(full: Node) -> None:
    os.unlink(full.receipt_path("verify"))
    ours = [PREFIX + "/bin/gpufleet-verify", PREFIX + "/libexec/gpufleet_verify_node.py"]
    others = full.write(PREFIX + "/bin/of-somebody-else")
    for path in ours:
        full.write(path)
    plan = full.remove()
    assert set(ours) <= set(plan.files) and others not in plan.files
    assert not any(full.at(path).exists() for path in ours) and full.at(others).exists()
    assert not full.at("/var/lib/gpufleet").exists()


def test_a_package_of_a_stage_that_stays_goes_with_that_one(full: Node) -> None:
    full.receipt("cuda_toolkit", packages=["library"], asked_packages=["library"])
    assert full.remove("nvidia_driver").kept["package library"] == "the stage cuda_toolkit stays and has it"
    assert "library" in full.packages
    full.remove()
    assert full.packages == ("base", "nvcc", "python")


def test_a_package_that_something_needs_stays_and_goes_later(full: Node) -> None:
    packages = Packages(full, venv="reportbug needs it")
    plan = full.remove(packages=packages)
    assert plan.kept["package venv"] == "reportbug needs it"
    assert packages.automatic == ["venv"]
    assert "venv" in full.packages
    full.set_packages(*full.packages, automatic=("venv",))
    assert full.plan(packages=Packages(full, venv="reportbug needs it")).lines() == []
    full.remove()
    assert "venv" not in full.packages
    assert not full.at("/var/lib/gpufleet").exists()


def test_marks_are_set_back(full: Node) -> None:
    full.receipt("python", auto_packages=["python"], added_packages=["venv"], asked_packages=["venv"])
    packages = Packages(full)
    full.remove(packages=packages)
    assert packages.automatic == ["python"]


@pytest.mark.parametrize(
    ("name", "why"), [("linux-image-6.1.0-9-amd64", "it is the kernel that runs"), ("editor", removal_plan.ASKED_SINCE)]
)
def test_packages_that_stay_for_their_own_sake(node: Node, name: str, why: str) -> None:
    node.set_packages("base", name, "other", automatic=("other", "linux-image-6.1.0-9-amd64"))
    node.receipt("nvidia_driver", added_packages=[name, "other"])
    assert node.remove().kept == {f"package {name}": why}
    assert node.packages == ("base", name)


def test_a_receipt_that_does_not_know_what_was_added_removes_no_package(node: Node) -> None:
    node.set_packages("base", "venv")
    made = node.receipt("python", packages=["venv"])
    del made["added_packages"]
    receipts.write_json(node.receipt_path("python"), made)
    assert "does not say" in node.remove().kept["package venv"]
    assert "venv" in node.packages


def test_a_role_that_was_cut_off_is_removed_too(node: Node) -> None:
    wanted = {"packages": ["driver"], "files": [BLACKLIST], "links": [], "trees": []}
    removal.removal_baseline.begin(receipts.STATE_DIR, "nvidia_driver", wanted, str(node.root))
    node.write(BLACKLIST, "# Written by gpufleet.stack.nvidia_driver: these drivers would take the GPU\n")
    node.set_packages("base", "python", "driver", "library", "editor", automatic=("library",))
    node.remove()
    assert not node.at(BLACKLIST).exists()
    assert node.packages == ("base", "editor", "python")
    assert not node.at("/var/lib/gpufleet").exists()


def test_python_does_not_go_from_under_the_environments(full: Node) -> None:
    with pytest.raises(GpufleetError, match="python cannot go before pytorch") as caught:
        full.plan("python")
    assert caught.value.code == "GF-REMOVE-NEEDED"
    assert full.plan("python", "pytorch").stages == ["pytorch", "python"]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ({"before": {"trees": {"/srv/cache": None}}}, "it was there before this collection"),
        ({"before": {"trees": {}}}, None),
        ({}, "whether this collection made it is not known"),
    ],
)
def test_a_cache_outside_the_prefix_goes_only_where_it_is_ours(full: Node, before: Any, kept: str | None) -> None:
    full.write("/srv/cache/wheel")
    full.receipt("pytorch", trees=[ENVIRONMENT], **before)
    plan = full.remove(cache_dir="/srv/cache")
    assert plan.kept.get("/srv/cache") == kept
    assert full.at("/srv/cache").exists() == (kept is not None)


def test_a_cache_on_a_file_system_of_its_own_stays(full: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = str(full.at(PREFIX + "/cache"))
    monkeypatch.setattr(os.path, "ismount", lambda path: path == cache)
    assert full.remove().kept == {PREFIX + "/cache": "it is a file system of its own"}
    assert full.plan().lines() == []


MOUNTS = "server:/x {point} {kind} rw 0 0\n/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\n"


@pytest.mark.parametrize("point", ["/opt", PREFIX])
def test_a_prefix_that_other_nodes_may_use_stays_and_the_nodes_own_part_goes(full: Node, point: str) -> None:
    full.write("/proc/self/mounts", MOUNTS.format(point=point, kind="nfs4"))
    shared = {path for path in full.listing() if path.startswith("opt/")}

    plan = full.remove()

    assert list(plan.kept) == [PREFIX]
    assert {path for path in full.listing() if path.startswith("opt/")} == shared
    assert full.packages == ("base", "python")
    assert not full.at(LINK).is_symlink()
    assert not full.at(PROFILE).exists()
    assert not full.at("/var/lib/gpufleet").exists()


@pytest.mark.parametrize(("point", "kind"), [("/opt", "xfs"), ("/opt/gpu", "nfs4"), ("/opt", "nfs4")])
def test_a_prefix_of_the_nodes_own_goes_and_a_shared_one_on_demand(full: Node, point: str, kind: str) -> None:
    full.write("/proc/self/mounts", MOUNTS.format(point=point, kind=kind))
    full.remove(shared=kind in removal_wish.SHARED and point == "/opt")
    assert not full.at(PREFIX).exists()


def test_a_cache_that_other_nodes_may_use_stays(full: Node) -> None:
    full.write("/proc/self/mounts", MOUNTS.format(point="/srv", kind="lustre"))
    full.write("/srv/cache/wheel")
    full.receipt("pytorch", trees=[ENVIRONMENT], before={"trees": {}})
    assert full.remove(cache_dir="/srv/cache").kept["/srv/cache"].startswith("other nodes may use it (lustre)")
    assert full.at("/srv/cache/wheel").exists()


# The whole fingerprint of a key is read from the key itself; this one is of no use to anybody.
KEY = Path(__file__).parents[3] / "fixtures/dnf/key.asc"


@pytest.mark.parametrize("trusted_before", [False, True])
def test_with_dnf_the_stream_is_reset_and_the_key_leaves_rpm(node: Node, trusted_before: bool) -> None:
    key = node.write(vendor_repository.KEY_FILES["dnf"], KEY.read_text())
    source = node.write(vendor_repository.SOURCE_FILES["dnf"], "[gpufleet-nvidia]\n")
    stream = node.write(removal_paths.STREAM_FILE, "[nvidia-driver]\nstream=570-open\nstate=enabled\n")
    node.receipt("nvidia_driver", files=[key, source, stream])
    # Going back, or a stream switched by hand, changes that file.
    node.write(removal_paths.STREAM_FILE, "[nvidia-driver]\nstream=580-open\nstate=enabled\n")
    if trusted_before:
        vendor_repository.note_key(str(node.root))
    packages = Packages(node)
    node.remove("nvidia_driver", packages=packages)
    assert not node.at(stream).exists()
    assert not node.at(key).exists()
    fingerprint = openpgp.keys(KEY.read_bytes())[0].fingerprint
    assert packages.distrusted == ([] if trusted_before else [fingerprint])


def with_installer(node: Node) -> dict[str, Any]:
    """A driver of NVIDIA's installer, and its installer kept for going back."""
    node.write("/var/lib/nvidia/log", "580.178.04\nNVIDIA\n1: /usr/bin/nvidia-smi\n1\n")
    node.write("/usr/bin/nvidia-smi")
    node.write("/usr/bin/nvidia-installer")
    node.link("/usr/bin/nvidia-uninstall", "nvidia-installer")
    node.write("/var/cache/gpufleet-runfiles/nvidia_driver/2f0c.run")
    node.write("/var/lib/dpkg/info/base.list", "/.\n")
    node.write(BLACKLIST)
    files = [BLACKLIST, "/usr/bin/nvidia-installer", "/var/lib/nvidia/log"]
    return {"files": files, "links": ["/usr/bin/nvidia-uninstall"]}


def test_the_driver_of_an_installer_goes_by_its_own_uninstaller(node: Node) -> None:
    before = node.listing()
    parts = with_installer(node)
    node.receipt("nvidia_driver", stage={"source": "runfile"}, directories=["/etc/modprobe.d"], **parts)
    plan = node.remove()
    assert ["/usr/bin/nvidia-uninstall", "--silent"] in node.commands
    assert "the driver of NVIDIA's installer" in plan.lines()
    assert plan.kept == {}
    left = {path for path in node.listing() - before if not path.startswith(("var/lib/dpkg", "usr/bin", "var/cache"))}
    assert left == set()
    assert not any(node.at(path).exists() for path in ("/usr/bin/nvidia-smi", "/var/cache/gpufleet-runfiles"))


def test_an_installer_that_was_cut_off_goes_too(node: Node) -> None:
    parts = with_installer(node)
    baseline = {"files": [BLACKLIST], "links": parts["links"], "trees": [], "packages": []}
    node.at("/usr/bin/nvidia-uninstall").unlink()
    removal.removal_baseline.begin(receipts.STATE_DIR, "nvidia_driver", baseline, str(node.root))
    node.link("/usr/bin/nvidia-uninstall", "nvidia-installer")
    node.remove("nvidia_driver")
    assert ["/usr/bin/nvidia-uninstall", "--silent"] in node.commands
    assert not node.at("/var/lib/nvidia").exists()


def test_a_driver_that_somebody_else_installed_by_hand_stays(node: Node) -> None:
    with_installer(node)
    node.receipt("nvidia_driver", stage={"source": "distro"}, files=[BLACKLIST])
    node.remove("nvidia_driver")
    assert node.commands == []
    assert node.at("/var/lib/nvidia/log").exists()
