"""The machine and the code that a measurement was made with, and what a run asks of the machine."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe(device: Any = None, processes: int = 1) -> dict[str, Any]:
    """What a run's seconds depend on, and which code it ran; by default on the device that the course picks."""
    import torch  # here: a page that names a record's machine does not wait for it

    from course_utils import training

    device = device or training.pick_device()
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processes": processes,
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "commit": commit(),
    }


def in_words(machine: dict[str, Any], precision: str) -> str:
    """What `describe` found, for people: processor, threads (or "cuda") of how many processes, and precision."""
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
    threads = threads if machine["device"] == "cpu" else machine["device"]
    processes = machine.get("processes", 1)  # records from before this entry were made by one
    return f"{machine['name']}, {f'{processes} × ' if processes > 1 else ''}{threads}, {precision}"


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    # A Mac's `platform.processor()` is "arm", whatever it has inside.
    mac = [] if names else [output("sysctl", "-n", "machdep.cpu.brand_string")]
    return next(filter(None, [*names, *mac, platform.processor(), platform.machine()]))


def commit() -> str | None:
    """The commit of the checkout that the package runs from, or None outside a checkout.

    A "+" behind it says that the package's code had changed since.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():  # installed; a repository around the environment is somebody else's
        return None
    head = output("git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD")
    changed = output("git", "-C", str(checkout), "status", "--porcelain", "--", "course_utils/*.py")
    return head and head + ("+" if changed else "")


def output(*command: str) -> str | None:
    """What a command prints, or None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cap_threads() -> None:
    """Have torch use no more threads than this process may use CPUs: under a container's quota they would all wait."""
    import torch

    from course_utils.exercises.parts import available_cpus

    if torch.get_num_threads() > (cpus := available_cpus()):
        print(f"{torch.get_num_threads()} threads would share {cpus} CPU(s): using {cpus}", flush=True)
        torch.set_num_threads(cpus)


def keep_freed_memory() -> None:
    """Have Linux's C library keep the memory that a batch frees, for the next batch to use.

    Otherwise it hands large blocks back to the system and asks for them again at every step, and the
    system clears each page before it gives it out: a tenth of a small network's training time on a CPU, a sixth
    of the ResNet's.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # the names' numbers in malloc.h
    # Older C libraries refuse the first, and take at most the second.
    libc.mallopt(mmap_threshold, 1 << 30) or libc.mallopt(mmap_threshold, 1 << 25)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
