"""cuDNN of NVIDIA's packages on a real Debian 12 with apt and a C compiler; repository and libraries are stand-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .vendor import Vendor, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run
pytestmark = pytest.mark.slow

PREFIX = "/opt/gpufleet/cudnn"
HOME = ". /etc/profile.d/gpufleet-cudnn.sh; echo $CUDNN_HOME"
# As a user compiles against it.
PROGRAM = """
cat > /root/use.c <<'END'
#include <stdio.h>
#include <cudnn_version.h>
unsigned long cudnnGetVersion(void);
int main(void) { printf("%lu %d", cudnnGetVersion(), CUDNN_VERSION); return 0; }
END
. /etc/profile.d/gpufleet-cudnn.sh
cc /root/use.c -I$CUDNN_HOME/include -L$CUDNN_HOME/lib -Wl,-rpath,$CUDNN_HOME/lib -lcudnn -o /root/use && /root/use
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("cudnn", tmp_path_factory) as this:
        this.sh("apt-get install -y -q gcc libc6-dev >/dev/null; /root/snapshot.sh > /root/bare.txt")
        yield this


def wish(node: Vendor, version: Any, **more: Any) -> Run:
    wishes = {"cudnn_version": version, "cudnn_source": "nvidia", "cuda_toolkit_version": "none", "pytorch_cuda": "cpu"}
    return node.play("cudnn", **{**wishes, **more})


def version(node: Vendor, name: str) -> str:
    return node.sh(f"dpkg-query -W -f '${{Version}}' {name}", check=False)


def test_8_is_installed_for_its_cuda_and_no_upgrade_moves_it(node: Vendor) -> None:
    run = wish(node, "8.9.2")
    assert run.rc == 0, run.stdout
    assert version(node, "libcudnn8") == "8.9.2.26-1+cuda12.1"
    assert node.sh(HOME) == f"{PREFIX}/8.9.2.26-cuda12"
    assert node.sh(PROGRAM) == "8902 8902"
    assert wish(node, "8.9.2").changed("node") == 0
    node.sh("apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get dist-upgrade -y -q >/dev/null")
    assert version(node, "libcudnn8") == "8.9.2.26-1+cuda12.1"


def test_what_somebody_moved_comes_back(node: Vendor) -> None:
    node.sh("apt-get install -y -q libcudnn8=8.9.7.29-1+cuda12.2 libcudnn8-dev=8.9.7.29-1+cuda12.2")
    run = wish(node, "8.9.2")
    assert run.rc == 0, run.stdout
    assert version(node, "libcudnn8-dev") == "8.9.2.26-1+cuda12.1"
    assert node.sh(PROGRAM) == "8902 8902"


def test_9_has_the_cuda_in_its_name_and_stands_beside_8(node: Vendor) -> None:
    run = wish(node, ["9.17", "8.9"], gpufleet_hold=True)
    assert run.rc == 0, run.stdout
    assert version(node, "libcudnn9-cuda-12") == "9.17.1.4-1"
    assert version(node, "libcudnn8") == "8.9.7.29-1+cuda12.2"
    assert node.sh(PROGRAM) == "91701 91701"
    held = {"libcudnn8", "libcudnn8-dev", "libcudnn9-cuda-12", "libcudnn9-dev-cuda-12"}
    assert set(node.sh("apt-mark showhold").split()) == held
    assert wish(node, ["9.17", "8.9"], gpufleet_hold=True).changed("node") == 0


def test_without_headers_the_libraries_are_proved_all_the_same(node: Vendor) -> None:
    run = wish(node, "9.17", cudnn_headers=False)
    assert run.rc == 0, run.stdout
    assert node.sh(f"ls {PREFIX}/9.17.1.4-cuda12") == "lib"
    assert node.sh("apt-mark showhold") == ""


def test_removal_leaves_nothing_of_it(node: Vendor) -> None:
    node.sh("rm -f /root/use /root/use.c")
    run = node.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    node.sh("/root/snapshot.sh > /root/now.txt")
    assert node.sh("diff /root/bare.txt /root/now.txt", check=False) == ""
