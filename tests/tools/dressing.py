"""What makes a Debian root file system stand in for another distribution on a test node.

**A stand-in, not the distribution**: os-release, the package manager's settings and the names of kernels and packages are the
other's, every program is Debian's. Its archive and NVIDIA's repositories are made by tests/tools/vendor_repository; the node
itself serves them on its loopback (molecule/shared/prepare.yml puts them there).
"""

from __future__ import annotations

from typing import NamedTuple

ARCHIVE = "http://127.0.0.1:8800"
# Compilers stand in the image, since installing them anew for each node would take longer than the tests.
_TOOLS = ("dkms", "gcc", "g++", "make", "kmod", "gpg")
_APT_SOURCES = {"ubuntu2004": "list", "ubuntu2204": "list", "ubuntu2404": "sources", "ubuntu2604": "sources"}
_RPM_TOOLS = (*_TOOLS, "rpm", "dnf", "python3-dnf", "dnf-plugins-core", "linux-headers-amd64", "dracut-core", "pigz")


class Dress(NamedTuple):
    """``suite`` is the Debian below, ``packages`` come from it, ``script`` runs once in the image.

    ``repository`` is NVIDIA's name for its repository of the distribution.
    """

    suite: str
    repository: str
    packages: tuple[str, ...]
    script: str


def _file(path: str, text: str) -> str:
    return f"mkdir -p $(dirname {path})\ncat > {path} <<'END'\n{text.strip()}\nEND\n"


def _os_release(fields: dict[str, str]) -> str:
    text = "".join(f'{key}="{value}"\n' for key, value in fields.items())
    return "rm -f /etc/os-release /etc/debian_version\n" + _file("/etc/os-release", text)


def _ubuntu(version: str, codename: str, suite: str) -> Dress:
    """Ubuntu's archive for Ubuntu's packages; all others come from Debian's, whose entry bears another release's name."""
    suites = " ".join(codename + end for end in ("", "-updates", "-security"))
    name = f"ubuntu{version.replace('.', '')}"
    if _APT_SOURCES[name] == "list":
        entries = "".join(f"deb {ARCHIVE}/ubuntu {each} main restricted\n" for each in suites.split())
        source = _file("/etc/apt/sources.list", entries)
    else:
        keyring = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
        fields = {
            "Types": "deb",
            "URIs": f"{ARCHIVE}/ubuntu",
            "Suites": suites,
            "Components": "main",
            "Signed-By": keyring,
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items())
        source = _file("/etc/apt/sources.list.d/ubuntu.sources", text)
    release = {
        "NAME": "Ubuntu",
        "ID": "ubuntu",
        "ID_LIKE": "debian",
        "VERSION_ID": version,
        "VERSION_CODENAME": codename,
        "UBUNTU_CODENAME": codename,
        "PRETTY_NAME": f"Ubuntu {version} (a stand-in)",
    }
    below = "mv /etc/apt/sources.list /etc/apt/sources.list.d/stand-in-debian.list\n"
    return Dress(suite, name, _TOOLS, _os_release(release) + below + source)


def _el(name: str, ident: str, version: str, platform: str, suite: str = "bookworm") -> Dress:
    """The kernels of the stand-in archive find their headers in Debian's, below /usr/src/debian-headers."""
    major = version.partition(".")[0]
    release = {
        "NAME": name,
        "ID": ident,
        "ID_LIKE": "rhel centos fedora" if ident != "rhel" else "fedora",
        "VERSION_ID": version,
        "PLATFORM_ID": f"platform:{platform}",
        "PRETTY_NAME": f"{name} {version} (a stand-in)",
    }
    repositories = "".join(
        f"[{each}]\nname={each} (a stand-in)\nbaseurl={ARCHIVE}/{platform}/{each}/x86_64\nenabled=1\ngpgcheck=1\n"
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-stand-in\n\n"
        for each in ("baseos", "epel")
    )
    headers = "ln -s $(ls -d /usr/src/linux-headers-*-amd64 | tail -n1) /usr/src/debian-headers\nrm -rf /lib/modules/*-amd64\n"
    links = "ln -s /usr/bin/update-alternatives /usr/sbin/alternatives\n"
    files = {
        # Debian's rpm keeps its database in the user's home, and the newer one has scripts leave namespaces, which a container may not.
        "/etc/rpm/macros": "%_dbpath /var/lib/rpm\n%_pkgverify_level none\n%__transaction_unshare %{nil}",
        "/etc/dnf/vars/releasever": major,
        # Debian's loader does not look there.
        "/etc/ld.so.conf.d/lib64.conf": "/usr/lib64",
        # It would index what it downloads with a program that is not there.
        "/etc/dnf/plugins/local.conf": "[main]\nenabled = 0",
        "/etc/redhat-release": f"{name} release {version} (a stand-in)",
        "/etc/yum.repos.d/stand-in.repo": repositories,
    }
    texts = "".join(_file(path, text) for path, text in files.items())
    repository = platform.replace("el", "rhel")
    return Dress(
        suite,
        repository,
        _RPM_TOOLS,
        _os_release(release) + texts + "mkdir -p /var/lib/rpm\nrpm --initdb\n" + headers + links,
    )


DRESSES = {
    "ubuntu2004": _ubuntu("20.04", "focal", "bullseye"),
    "ubuntu2204": _ubuntu("22.04", "jammy", "bookworm"),
    "ubuntu2404": _ubuntu("24.04", "noble", "bookworm"),
    "ubuntu2604": _ubuntu("26.04", "resolute", "trixie"),
    **{
        f"{short}{version.partition('.')[0]}": _el(name, ident, version, f"el{version.partition('.')[0]}", suite)
        for short, name, ident in (
            ("rocky", "Rocky Linux", "rocky"),
            ("alma", "AlmaLinux", "almalinux"),
            ("rhel", "Red Hat Enterprise Linux", "rhel"),
        )
        for version, suite in (("8.10", "bookworm"), ("9.6", "bookworm"), ("10.1", "trixie"))
    },
    "amzn2023": _el("Amazon Linux", "amzn", "2023", "amzn2023"),
}
