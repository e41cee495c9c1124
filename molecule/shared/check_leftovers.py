"""Compares a node with what it was before the first run; runs on the node, and prints every difference.

With the argument ``note`` it writes down which paths there are. Not looked at: logs, the package managers' own records and caches,
and what the tests themselves put there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

NOTE, BEFORE = "/root/tree.txt", "/root/before.txt"
OTHERS = re.compile(
    r"/(dev|proc|root|run|sys|tmp)/|/var/(cache|log|tmp)/|/var/lib/(apt|dpkg|systemd|ucf)/|/opt/recorded|.*/__pycache__"
)
# What docs/removal.md names, and no more. Debian's packages leave the user that they made: its number must not go to somebody else.
KNOWN = re.compile(r"/var/lib/dkms(/mok\.(key|pub))?$|(/usr)?/lib/modules(/[^/]+(/modules\.[a-z.]+)?)?$")
UDEVS = ("clock", "input", "kvm", "render", "sgx")  # came with udev, which a real machine has before
LEFT = {"group nvpd", "user nvpd", *(f"group {name}" for name in UDEVS)}


def paths() -> set[str]:
    found = set()
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if not OTHERS.match(os.path.join(folder, name, ""))]
        found.update(os.path.join(folder, name) for name in (*folders, *files))
    return found


def read(path: str) -> set[str]:
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return set(stream.read().splitlines())


def main() -> None:
    if sys.argv[1:] == ["note"]:
        with open(NOTE, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write("\n".join(sorted(paths())))
        return
    now = subprocess.run(["/root/snapshot.sh"], stdout=subprocess.PIPE, check=True).stdout.decode()
    before, after = read(BEFORE), set(now.splitlines())
    wrong = [f"gone: {line}" for line in sorted(before - after)]
    wrong += [f"new: {line}" for line in sorted(after - before - LEFT)]
    wrong += [f"docs/removal.md does not name {path}" for path in sorted(paths() - read(NOTE)) if not KNOWN.match(path)]
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
