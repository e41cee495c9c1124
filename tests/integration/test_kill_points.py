"""Runs that are killed at fifty seeded moments: what is active stays so, and the next run leaves nothing of the killed one.

The environments are built for real by uv, from tiny wheels, on this machine. Half of the moments are between two
operations on files or processes of our own code, which Python's audit events tell; the other half are moments in time,
at which uv and its children are killed too, as a power cut would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_survey
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    BUILDING,
    COMPLETE,
    DOOMED,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import (
    COLLECTIONS,
    OTHER,
    site,
    stock,
    want,
)
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

POINTS = 50
SEED = 20261125
# Writes down each operation, and ends itself with SIGKILL before the one whose number it was given (0: never).
CHILD = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_layout, environments
wanted = environment_layout.Wanted(**json.loads(sys.argv[2]))
last, count = int(sys.argv[3]), 0
WATCHED = ("os.", "shutil.", "subprocess.Popen", "tempfile.mkstemp")

def watch(event, arguments):
    global count
    writes = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
    if writes or (event.startswith(WATCHED) and event not in ("os.listdir", "os.scandir")):
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
environments.ensure(wanted)
print(count)
"""


@dataclasses.dataclass
class Yard:
    """Environments of two names below one prefix; each step is another wish for one of them."""

    index: Index
    root: Path
    number: int = 0
    operations: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def wish(self, kind: str) -> Wanted:
        """What is asked for next: ``build``: another lock and nothing that could be linked; ``twin``; or ``repair``."""
        self.number += 1
        directory = f"2.0.1-cu117-{self.number}"
        if kind == "twin":
            return want(self.index, self.root, *OTHER, directory=directory, lock_wait=30.0, keep=1)
        # A wheel that no other environment has.
        build_wheel(self.index.folder, "twig", f"1.{self.number}", {"twig.py": "x = 1\n"})
        requirements = ("torch==2.0.1", f"twig==1.{self.number}")
        wanted = want(self.index, self.root, *requirements, directory=directory, lock_wait=30.0, keep=1)
        if kind == "repair":
            ensure(wanted)
            (site(wanted) / "leaf.py").unlink()
        return wanted

    def start(self, wanted: Wanted, last: int = 0) -> subprocess.Popen[str]:
        """A run in a session of its own, so that it can be killed with its children."""
        arguments = [str(COLLECTIONS), json.dumps(dataclasses.asdict(wanted)), str(last)]
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def rehearse(self, kind: str) -> None:
        """Count the operations of a run that nobody kills, and its time."""
        began = time.monotonic()
        run = self.start(self.wish(kind))
        said, _errors = run.communicate()
        assert run.returncode == 0
        self.operations[kind], self.seconds[kind] = int(said), time.monotonic() - began


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder, root = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("yard")
    stock(folder)
    with serve(folder) as index, pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_CACHE_DIR", str(root / "controller-cache"))
        made = Yard(index, root)
        # What a twin is linked to stands under another name and is never worked on.
        ensure(want(index, root, *OTHER, directory="2.0.1-cu117-0", name="first"))
        ensure(want(index, root, directory="2.0.1-cu117-0"))
        for kind in ("build", "twin", "repair"):
            made.rehearse(kind)
        yield made


def imports(wanted: Wanted) -> str:
    """What the active environment is, told by its own Python."""
    code = "import torch, torchvision, sys; print(sys.prefix)"
    answer = subprocess.run(
        [f"{wanted.link}/bin/python", "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return os.path.realpath(answer.stdout.strip())


def kill(yard: Yard, kind: str, draw: random.Random, by_operation: bool) -> tuple[Wanted, str]:
    """A run that was killed at a random moment, and what was active before it. One that ended earlier does not count."""
    for share in (1.0, 0.7, 0.4, 0.2, 0.1):
        if kind == "build" and draw.random() < 0.5:
            # Nothing cached: the wheels are fetched too.
            shutil.rmtree(yard.root / "opt/cache", ignore_errors=True)
        wanted = yard.wish(kind)
        before = imports(wanted)
        if by_operation:
            run = yard.start(wanted, last=draw.randint(1, max(1, int(share * yard.operations[kind]))))
            run.wait()
        else:
            run = yard.start(wanted)
            time.sleep(draw.uniform(0.1, max(0.2, share * yard.seconds[kind])))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        assert run.stdout
        run.stdout.close()
        if run.returncode == -signal.SIGKILL:
            return wanted, before
        assert run.returncode == 0
    raise AssertionError(f"no run of {kind} could be killed")


@pytest.mark.parametrize("point", range(POINTS))
def test_killed_at_a_random_moment(yard: Yard, point: int) -> None:
    draw = random.Random(SEED + point)  # noqa: S311 - moments, no secrets
    kind = draw.choice(["build", "build", "twin", "repair"])
    wanted, before = kill(yard, kind, draw, by_operation=bool(point % 2))

    active = imports(wanted)
    assert active in (before, os.path.realpath(wanted.path))
    assert os.path.exists(os.path.join(active, COMPLETE))
    print(f"{kind}: {sorted(os.listdir(os.path.dirname(wanted.link)))}")

    ensure(wanted)
    folder = Path(wanted.link).parent
    assert sorted(path.name for path in folder.iterdir()) == [".history", ".lock", Path(wanted.path).name, "current"]
    assert not [path for path in folder.rglob("*") if path.name == BUILDING or path.name.startswith(DOOMED)]
    assert not [path for path in Path(wanted.cache_dir).iterdir() if path.name.startswith(".tmp")]
    assert imports(wanted) == os.path.realpath(wanted.path)
    assert (site(wanted) / "leaf.py").exists()
    assert environment_survey.survey(wanted).healthy()
    assert ensure(wanted)["changed"] is False
