"""The oldest and the newest versions that pyproject.toml admits, in environments of their own: `make test-versions`.

Each gets the same commands and tests, and draws and packs the same faces, whose bytes must be equal in all of them.

    python3 -m tests.environments --python python3.11 --python python3.13 [--torch none] [TEST ...]

Needs pip's registry and no installed package. A folder that is complete is used again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("dashboard", "deepspeed", "heif", "onnx", "sweep")
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "scikit-image", "setuptools", "wheel")
# What libraries do for us: files of every kind, training on each engine and on two ranks, evaluation, export, sweep, resume.
TESTS = ("tests/whole", "tests/config", "tests/data", "tests/faces", "tests/inference", "tests/report", "tests/runs", "tests/sweep",
         "tests/training", "tests/tasks", "tests/commands", "tests/distributed/test_deepspeed.py", "tests/distributed/test_engines.py",
         "tests/distributed/test_group.py")  # fmt: skip
WITHOUT_TORCH = ("tests/faces", "tests/config", "tests/data/readers", "tests/data/packing/test_pack.py", "tests/test_files.py",
                 "tests/test_structured.py", "tests/test_units.py", "tests/commands/test_draw.py", "tests/commands/test_verify.py")  # fmt: skip
# DeepSpeed is published as source alone.
WHEELS = ["--only-binary", ":all:", "--no-binary", "deepspeed"]


def requirements(torch: str) -> dict[str, str]:
    """Return what is installed: requirement by name, such as {"numpy": "numpy>=2.0"}; torch as it is asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    found = {line.split(">")[0]: line.split(";")[0].strip() for line in lines}
    del found["torch"]
    if torch == "none":
        del found["deepspeed"]  # it imports torch
        return found
    return {"torch": f"torch=={torch}", **found}


def oldest(python: str, requirement: str) -> str:
    """Return the oldest admitted version that has a wheel for this Python; the bound itself, where it has one."""
    name, bound = requirement.split(">=")
    listed = subprocess.run(
        [python, "-m", "pip", "index", "versions", name.split("[")[0]], capture_output=True, text=True
    )
    known = re.search(r"Available versions: (.*)", listed.stdout)
    versions = known[1].split(", ")[::-1] if known else []
    for version in [bound, *(v for v in versions if _numbers(v) > _numbers(bound))]:
        try_it = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", *WHEELS, f"{name}=={version}"]
        if subprocess.run([python, "-m", "pip", *try_it], capture_output=True).returncode == 0:
            return f"{name}=={version}"
    raise SystemExit(f"{requirement}: pip finds no version of it for {python}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0]))


def make(folder: Path, python: str, which: str, torch: str) -> Path:
    """Make an environment with the oldest or the newest versions, and return its Python."""
    own = folder / "bin/python"
    if not (folder / "ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        wanted = list(requirements(torch).values())
        if which == "oldest":
            wanted = [oldest(str(own), line) if ">=" in line else line for line in wanted]
        (folder / "wanted.txt").write_text("\n".join(wanted) + "\n")
        env = {**os.environ, "DS_BUILD_OPS": "0"}
        pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *TOOLS], check=True)
        # Without isolation: DeepSpeed's build would fetch a torch of its own.
        subprocess.run([*pip, "--no-build-isolation", *WHEELS, "-r", folder / "wanted.txt"], check=True, env=env)
        subprocess.run([*pip, "--no-build-isolation", "--no-deps", "-e", ROOT], check=True)
        (folder / "ready").touch()
    return own


def bytes_made(python: Path, folder: Path) -> str:
    """Draw faces, pack them, and return one hash of all files but the manifest, which names its folder."""
    out = folder / "made"
    subprocess.run(["rm", "-rf", out], check=True)
    start = [python, "-m", "collagan_dist"]
    draw = [*start, "draw", out / "faces", "--count", "48", "--seed", "3"]
    pack = [*start, "pack", ROOT / "shards/drawn.yaml", "--root", out / "faces", "--out", out / "packed"]
    for command in (draw, [*pack, "--set", "store_size=88"]):
        subprocess.run(command, check=True, capture_output=True)
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json"):
        digest.update(f"{path.relative_to(out)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tests", nargs="*", help="pytest's arguments in place of the chosen tests")
    parser.add_argument("--python", action="append", help="a Python to try; may be given several times")
    parser.add_argument("--which", choices=("oldest", "newest"), action="append")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-versions", help="where the environments are made")
    # A CUDA build has gigabytes, so it is the pinned one, of which some machines have a CPU build.
    pinned = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    parser.add_argument("--torch", default=pinned and pinned[1], help="its version; none: what runs without it")
    args = parser.parse_args()
    made, good = {}, True
    for python in args.python or [sys.executable]:
        for which in args.which or ("oldest", "newest"):
            folder = args.folder.resolve() / f"{Path(python).name}-{which}"
            own = make(folder, python, which, args.torch)
            made[folder.name] = bytes_made(own, folder)
            print(f"{folder.name}: bytes of drawn faces and their shards {made[folder.name]}", flush=True)
            env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{own.parent}:{os.environ['PATH']}"}
            tests = args.tests or (WITHOUT_TORCH if args.torch == "none" else TESTS)
            pytest = [own, "-m", "pytest", "-m", "not slurm", "--no-header", *tests]
            good &= subprocess.run(pytest, cwd=ROOT, env=env).returncode == 0
    same = len(set(made.values())) == 1
    print("the bytes are the same in all" if same else f"the bytes DIFFER: {made}")
    return 0 if good and same else 1


if __name__ == "__main__":
    sys.exit(main())
