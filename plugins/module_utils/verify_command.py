# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gpufleet-verify: tell whether this node is proved. Written to the node as it is; it needs Python's own library alone.

Exit status: 0 proved, 1 failed, 2 not known.
"""

# It is no module of Ansible's: it starts programs, prints and exits by itself.
# pylint: disable=ansible-bad-function

from __future__ import annotations

import argparse
import calendar
import contextlib
import ctypes
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

PROVED, FAILED, UNKNOWN = 0, 1, 2
WORDS = {PROVED: "proved", FAILED: "failed", UNKNOWN: "not known"}
MOST_SECONDS = 20
MESSAGE_CHARACTERS = 300
REASON_CHARACTERS = 120
# Ended a little before the shell around this ends everything.
MARGIN_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


class Answer:
    """What is known of the node: the exit status, one sentence, and what a program reads."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        self.status = status
        self.message = plain(message)
        self.details = details

    def line(self) -> str:
        """For a person."""
        return f"gpufleet-verify: {WORDS[self.status]}: {self.message}"

    def document(self) -> dict[str, Any]:
        """For a program."""
        status = WORDS[self.status].replace("not known", "unknown")
        return {"schema": 1, "status": status, "exit": self.status, "message": self.message, **self.details}


def plain(text: str) -> str:
    """One line without control characters: it goes to terminals, and into Slurm's reason."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:MESSAGE_CHARACTERS]


def read_json(path: str) -> dict[str, Any] | None:
    """The document in a file; None where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def loaded(root: str = "/") -> dict[str, Any]:
    """The driver that is loaded and the number of GPUs that it lists, as the verdict has them."""
    driver = None
    try:
        with open(os.path.join(root, "proc/driver/nvidia/version"), encoding="utf-8", errors="replace") as stream:
            found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", stream.readline())
        driver = found.group(1) if found else None
    except OSError:
        pass  # none is loaded
    try:
        gpus = len(os.listdir(os.path.join(root, "proc/driver/nvidia/gpus")))
    except OSError:
        gpus = 0
    return {"driver": driver, "gpus": gpus}


# ---- the stored verdict ---------------------------------------------------------------------------------------------


def stored(verdict: dict[str, Any] | None, now: dict[str, Any], clock: float, max_age: float) -> Answer:
    """What the last verdict says of the node as it is now."""
    if verdict is None or "ok" not in verdict:
        return Answer(UNKNOWN, "there is no verdict that can be read; run the playbook for this node", source="verdict")
    age = age_hours(verdict.get("at"), clock)
    verified = {"driver": verdict.get("driver"), "gpus": verdict.get("gpus", 0)}
    details = {
        "source": "verdict",
        "at": verdict.get("at"),
        "age_hours": None if age is None else round(age, 2),
        "level": verdict.get("level", "quick"),
        "verified": verified,
        "loaded": now,
    }
    status, message = weigh(verdict, verified, now, age, max_age)
    return Answer(status, message, **details)


def weigh(
    verdict: dict[str, Any], verified: dict[str, Any], now: dict[str, Any], age: float | None, max_age: float
) -> tuple[int, str]:
    """Failures first; then what makes the verdict one of another node, or of another time."""
    environments = verdict.get("environments") or []
    if not verdict["ok"]:
        return FAILED, failures([(each.get("name"), each.get("checks") or []) for each in environments])
    if verified["driver"] and not now["driver"]:
        return FAILED, f"no NVIDIA driver is loaded, {verified['driver']} was verified"
    if now["gpus"] < verified["gpus"]:
        return FAILED, f"the driver lists {now['gpus']} GPUs, {verified['gpus']} were verified"
    gone = [each["interpreter"] for each in environments if not os.path.exists(each.get("interpreter") or "/")]
    if gone:
        return FAILED, f"{gone[0]} is gone"
    if verdict.get("schema") != 1 and now != verified:
        was = f"{verified['driver'] or 'none'} with {verified['gpus']}"
        return UNKNOWN, f"driver {now['driver']} with {now['gpus']} GPUs is loaded, {was} was verified"
    if age is None:
        return UNKNOWN, "the verdict does not say when it was made"
    if max_age and age > max_age:
        return UNKNOWN, f"the verdict is {age:.0f} hours old (more than {max_age:g})"
    # What is of the node itself has no torch.
    versions = ", ".join(f"torch {each['torch_version']}" for each in environments if each.get("torch_version"))
    gpus = f"driver {now['driver']}, {now['gpus']} GPUs" if now["driver"] else "no GPU"
    return PROVED, f"{age:.0f} hours ago, level {verdict.get('level', 'quick')}: {versions}; {gpus}"


def age_hours(at: Any, clock: float) -> float | None:
    """Hours since a time of ISO 8601 in UTC."""
    try:
        return (clock - calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))) / 3600
    except (TypeError, ValueError):
        return None


def failures(environments: list[tuple[Any, list[dict[str, Any]]]]) -> str:
    """The first check that failed, and how many more did."""
    failed = [
        f"{name}/{check.get('name')}: {check.get('message') or 'failed'}"
        for name, checks in environments
        for check in checks
        if check.get("status") == "failed"
    ]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return (failed[0][: MESSAGE_CHARACTERS - 20] if failed else "a check failed") + more


# ---- the quick checks, now ------------------------------------------------------------------------------------------


def users_of_gpus(proc: str = "/proc") -> list[str]:
    """Processes of others that have a GPU open; the driver's own services are nobody's work."""
    found = []
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        folder = os.path.join(proc, pid, "fd")
        try:
            targets = [os.readlink(os.path.join(folder, each)) for each in os.listdir(folder)]
            with open(os.path.join(proc, pid, "comm"), encoding="utf-8", errors="replace") as stream:
                name = stream.read().strip()
        except OSError:
            continue  # it ended, or hides its files from this user
        if any(target.startswith("/dev/nvidia") for target in targets) and name not in SERVICES:
            found.append(f"{name} ({pid})")
    return found


SERVICES = (
    "nvidia-persiste",
    "nv-fabricmanage",
    "nvidia-imex",
    "nvlsm",
    "nvidia-powerd",
    "nv-hostengine",
    "dcgm-exporter",
    "nvidia-smi",
)


def checked(settings: dict[str, Any] | None, deadline: float, busy: bool) -> Answer:
    """Run the quick checks of every environment, in the time that there is."""
    if settings is None:
        return Answer(UNKNOWN, "this node was never verified; run the playbook for it", source="run")
    users = [] if busy else users_of_gpus()
    if users:
        return Answer(UNKNOWN, f"{', '.join(users[:4])} uses a GPU; --busy computes all the same", source="run")
    results: list[tuple[Any, list[dict[str, Any]]]] = []
    for environment in settings["environments"]:
        try:
            results.append((environment["name"], run_checks(environment, settings, deadline - time.monotonic())))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return Answer(UNKNOWN, f"{environment['name']}: {error}", source="run")
    checks = [check for _name, found in results for check in found]
    if not checks:
        return Answer(UNKNOWN, "there is no environment to check", source="run")
    count = {status: sum(1 for check in checks if check.get("status") == status) for status in ("passed", "failed")}
    details = {"source": "run", "level": "quick", "passed": count["passed"], "failed": count["failed"]}
    if count["failed"]:
        return Answer(FAILED, failures(results), **details)
    return Answer(PROVED, f"{count['passed']} quick checks passed just now", **details)


def run_checks(environment: dict[str, Any], settings: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """The checks of one environment.

    :raises ValueError: where they did not end in time, or gave no answer.
    """
    become = None
    if settings.get("user") and os.geteuid() == 0:
        become = pwd.getpwnam(settings["user"]) if known(settings["user"]) else None
        if become is None:
            raise ValueError(f"there is no user {settings['user']}, as whom it was verified")
    with tempfile.TemporaryDirectory(prefix="gpufleet-verify-") as folder:
        expect = os.path.join(folder, "expect.json")
        with open(expect, "w", encoding="utf-8") as stream:
            json.dump(environment["expect"], stream)
        if become is not None:
            os.chown(folder, become.pw_uid, become.pw_gid)
            os.chown(expect, become.pw_uid, become.pw_gid)
        variables = {**settings["variables"], "HOME": folder, "TMPDIR": folder}
        argv = [environment["interpreter"], settings["script"], "--json", "--expect", expect, "--level", "quick"]
        with open(os.path.join(folder, "out"), "w+b") as out, open(os.path.join(folder, "err"), "w+b") as err:
            rc = run_until(argv, variables, folder, out, err, seconds, become)
            if rc is None:
                raise ValueError(f"the quick checks took longer than {max(seconds, 0):.0f} seconds")
            out.seek(0)
            err.seek(0)
            text, said = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
    try:
        checks = json.loads(text)["checks"] if rc in (PROVED, FAILED) else None
    except (ValueError, KeyError, TypeError):
        checks = None
    if not isinstance(checks, list) or not checks or (rc == FAILED) != any(c.get("status") == "failed" for c in checks):
        raise ValueError(f"the checks gave no answer (exit status {rc}): {(said or text).strip()[-200:]}")
    return checks


def known(user: str) -> bool:
    """Whether the node has such a user."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def run_until(
    argv: list[str], variables: dict[str, str], folder: str, out: Any, err: Any, seconds: float, become: Any
) -> int | None:
    """Run a program; None where the time was over and it had to be ended, with all that it started."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=folder,
        env=variables,
        start_new_session=True,
        preexec_fn=prepare(become),  # noqa: PLW1509 - one thread
    )
    try:
        return process.wait(max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Nothing may be left of it, or it may be stuck in the driver.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(MARGIN_SECONDS / 2)


def prepare(become: Any) -> Callable[[], None]:
    """What a child does before its program starts: be that user, and end with this process, whatever ends this one."""
    groups = os.getgrouplist(become.pw_name, become.pw_gid) if become is not None else []

    def child() -> None:
        if become is not None:
            os.setgroups(groups)
            os.setgid(become.pw_gid)
            os.setuid(become.pw_uid)
        # After setuid, which takes it back.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))

    return child


# ---- Slurm ----------------------------------------------------------------------------------------------------------


def drain(message: str, seconds: float) -> str:
    """Drain this node in Slurm with the sentence as its reason; one that is drained keeps its own reason.

    :returns: what was done.
    """
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename.partition(".")[0]
    try:
        shown = scontrol(["show", "node", "--oneliner", node], seconds)
        state = re.search(r"\bState=(\S+)", shown)
        if state and "DRAIN" in state.group(1):
            return f"{node} is drained already"
        reason = f"Reason=gpufleet-verify: {message}"[:REASON_CHARACTERS]
        scontrol(["update", f"NodeName={node}", "State=DRAIN", reason], seconds)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"{node} could not be drained: {plain(str(said))}"
    return f"{node} was drained"


def scontrol(arguments: list[str], seconds: float) -> str:
    """What Slurm's own program answers."""
    done = subprocess.run(
        ["scontrol", *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=max(seconds, 0.5),
    )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the program."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="gpufleet-verify",
        description="Tell whether this node is proved. Exit status: 0 proved, 1 failed, 2 not known.",
        allow_abbrev=False,
    )
    parser.add_argument("--state", metavar="DIRECTORY", default="/var/lib/gpufleet", help=argparse.SUPPRESS)
    parser.add_argument(
        "--run", action="store_true", help="run the quick checks now; without it the last verdict counts"
    )
    parser.add_argument("--busy", action="store_true", help="with --run: compute on GPUs that a process uses, too")
    parser.add_argument("--max-age", metavar="HOURS", type=float, help="how old a verdict may be; 0: any age")
    parser.add_argument("--timeout", metavar="SECONDS", type=int, default=MOST_SECONDS, help="end then, whatever hangs")
    parser.add_argument("--drain", action="store_true", help="where a check failed, drain this node in Slurm")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a line")
    options = parser.parse_args(arguments)
    deadline = started + options.timeout - min(MARGIN_SECONDS, options.timeout / 4)
    settings = read_json(os.path.join(options.state, "gpufleet-verify.json"))
    if options.run:
        answer = checked(settings, deadline, options.busy)
    else:
        max_age = options.max_age if options.max_age is not None else (settings or {}).get("max_age", 0)
        answer = stored(read_json(os.path.join(options.state, "verdict.json")), loaded(), time.time(), max_age)
    if options.drain and answer.status == FAILED:
        answer.details["drain"] = drain(answer.message, deadline - time.monotonic())
    print(json.dumps(answer.document(), sort_keys=True) if options.json else answer.line(), flush=True)
    if "drain" in answer.details and not options.json:
        print(f"gpufleet-verify: {answer.details['drain']}", flush=True)
    return answer.status


if __name__ == "__main__":
    sys.exit(main())
