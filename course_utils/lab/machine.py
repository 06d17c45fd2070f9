"""The machine and the code that a measurement was made with."""

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def describe(device: "torch.device | None" = None) -> dict[str, Any]:
    """What a run's seconds depend on, and which code it ran; by default on the device that the course picks."""
    import torch

    from course_utils import training
    from course_utils.lab import parallel

    device = device or training.pick_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processes": parallel.world(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "torchvision": version("torchvision"),
        "commit": commit(),
    }


def in_words(machine: dict[str, Any], precision: str) -> str:
    """What `describe` found, for people: processor, threads (or "cuda") of how many processes, and precision."""
    threads = f"{machine['threads']} threads" if machine["device"] == "cpu" else machine["device"]
    processes = machine.get("processes", 1)  # records from before this entry were made by one
    return f"{machine['name']}, {f'{processes} × ' if processes > 1 else ''}{threads}, {precision}"


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    if names:
        return names[0].split(":")[1].strip()
    # A Mac's `platform.processor()` is "arm", whatever it has inside.
    return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


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


def keep_freed_memory() -> None:
    """Have Linux's C library keep the memory that a batch frees, for the next batch to use.

    Otherwise it hands large blocks back to the system and asks for them again at every step, and the
    system clears each page before it gives it out: a tenth of a small network's training time on a CPU.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # the names' numbers in malloc.h
    # Older C libraries refuse the first, and take at most the second.
    libc.mallopt(mmap_threshold, 1 << 30) or libc.mallopt(mmap_threshold, 1 << 25)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    libc.mallopt(top_pad, 1 << 28)
