"""Measure label, stats and evaluate on a volume of gigavoxels with more than a million objects.

The truth differs from the prediction in ways that are known: objects are missing, made up, moved,
split or merged. The number of objects, of matches and of voxels is counted while the volume is
made, without volseg, and a command that reports anything else fails this benchmark. So does one
that takes more memory than allowed.

Each command runs in a process of its own through the command line, start-up included. Peak memory
is what the system noted of that process.

    python benchmarks/large.py                                # 1 and 4 gigavoxels, 5 GB of disk
    python benchmarks/large.py --scales sixteenth,quarter
    python benchmarks/large.py --folder kept --only evaluate  # the volumes stay
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _large_volume import NAME, Expected, make_volume

from volseg.storage.volumes import labels_path, open_image, scratch_path

SCALES = {
    "sixteenth": (256, 512, 2048),
    "quarter": (512, 1024, 2048),
    "full": (1024, 2048, 2048),
}
COMMANDS = {
    "label": ["label"],
    "stats basic": ["stats", "--measure", "basic"],
    "stats": ["stats"],
    "evaluate": ["evaluate", "--truth", "truth", "--output", "evaluation"],
}
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Run:
    """One run of a command: seconds, those of all cores added up, peak MB, and its report."""

    seconds: float
    processor: float
    peak: float
    report: Any


def run(command: str, volume: Path) -> Run:
    """Run a command and wait for its report."""
    if command == "label":  # which is soon done where nothing is missing
        shutil.rmtree(labels_path(volume, NAME), ignore_errors=True)
        shutil.rmtree(scratch_path(volume), ignore_errors=True)
    verb, *flags = COMMANDS[command]
    line = [sys.executable, "-m", "volseg", verb, str(volume), *flags, "--json", "-q"]
    with tempfile.TemporaryFile("w+") as output:
        begun, used, peak = time.perf_counter(), _processor_seconds(), 0.0
        process = subprocess.Popen(line, stdout=output, cwd=volume.parent)
        while process.poll() is None:
            peak = max(peak, _peak_megabytes(process.pid))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - begun
        output.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(line)}: exit status {process.returncode}")
        return Run(seconds, _processor_seconds() - used, peak, json.load(output))


def _processor_seconds() -> float:
    """Read the time that processes took which were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _peak_megabytes(process: int) -> float:
    """Read the peak so far; ru_maxrss of a child would hold its parent's too."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    # a process that has just ended has no memory
    return next((int(n.split()[1]) for n in status.splitlines() if "VmHWM" in n), 0) / 1024


def differences(command: str, report: Any, expected: Expected) -> Iterator[str]:
    """Compare what a command reported with what it should have."""
    if command == "label":
        pairs = {"objects": (report["objects"], expected.predicted)}
    elif command.startswith("stats"):
        found = report[0]
        pairs = {
            "objects": (found["objects"], expected.predicted),
            "voxels": (found["object_voxels"], expected.voxels),
        }
    else:
        found, voxels, errors = report["objects"], report["foreground"], report["errors"]["counts"]
        pairs = {k: (found[k], getattr(expected, k)) for k in ("truth", "predicted", "matched")}
        pairs |= {k: (voxels[k], getattr(expected, k)) for k in ("both", "truth_only")}
        pairs["predicted only"] = voxels["predicted_only"], expected.voxels - expected.both
        pairs |= {k: (errors[k], getattr(expected, k)) for k in ("split", "merged")}
        pairs["missed"] = errors["missed"], expected.truth - expected.matched
        pairs["false"] = errors["false"], expected.predicted - expected.matched
        mean = round(expected.total_iou / expected.matched, 9)
        pairs["IoU"] = round(found["matched_iou"], 9), mean
    for what, (got, want) in pairs.items():
        if got != want:
            yield f"{what}: found {got}, expected {want}"


def find_volume(folder: Path, scale: str) -> tuple[Path, Expected]:
    """Make a volume, unless it is there from another time; say what it holds."""
    volume, noted = folder / scale / "vol.zarr", folder / scale / "expected.json"
    if not noted.exists():
        shutil.rmtree(volume.parent, ignore_errors=True)
        volume.parent.mkdir(parents=True)
        begun = time.perf_counter()
        expected = make_volume(volume, SCALES[scale])
        print(f"{scale}: made in {time.perf_counter() - begun:.0f} s", flush=True)
        noted.write_text(json.dumps(asdict(expected)), encoding="utf-8")
    return volume, Expected(**json.loads(noted.read_text(encoding="utf-8")))


def measure(folder: Path, scales: list[str], commands: list[str], limit: float) -> list[str]:
    """Run all, print what was measured, and return what went wrong."""
    wrong, before = [], dict[str, tuple[float, int]]()
    for scale in scales:
        volume, expected = find_volume(folder, scale)
        voxels = math.prod(open_image(volume).levels[0].shape)
        print(f"{scale}: {voxels / 1e6:.0f} Mvoxel, {expected}", flush=True)
        for command in commands:
            done = run(command, volume)
            peak, found = done.peak, [*differences(command, done.report, expected)]
            if peak > limit * 1000:
                found.append(f"peak {peak:.0f} MB, allowed {limit * 1000:.0f}")
            speed = voxels / 1e6 / done.seconds
            line = f"  {command:12} {done.seconds:6.1f} s {speed:6.1f} Mvoxel/s"
            line += f"   {done.processor:6.1f} s of processor   peak {peak:.0f} MB"
            if command in before:
                less, fewer = before[command]
                slope = (peak - less) / (expected.predicted - fewer) * 1e6
                line += f", {slope:.0f} more for each million objects"
            before[command] = peak, expected.predicted
            print(line, *found, sep="\n    WRONG: ", flush=True)
            wrong += [f"{scale}, {command}: {text}" for text in found]
    return wrong


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", default="quarter,full", help=f"of {', '.join(SCALES)}")
    parser.add_argument("--only", help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--folder", type=Path, help="keep the volumes here for another time")
    parser.add_argument("--limit", type=float, default=6.0, help="GB that a command may take")
    arguments = parser.parse_args()
    scales = arguments.scales.split(",")
    commands = arguments.only.split(",") if arguments.only else list(COMMANDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        wrong = measure(folder, scales, commands, arguments.limit)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
