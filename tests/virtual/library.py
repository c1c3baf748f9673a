"""hooks.cpp, compiled. Imported where torch may be there already: it loads nothing."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

HOOKS = Path(__file__).parent / "hooks.cpp"


def missing_compiler() -> str | None:
    return None if shutil.which("g++") else "no C++ compiler (g++)"


def compile_hooks(folder: Path) -> Path:
    """Compile the hooks into a folder, against the installed torch; return the library."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch, out = Path(spec.origin).parent, folder / "hooks.so"
    libraries = [f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-lc10", "-ltorch_cpu"]
    flags = ["-O0", "-shared", "-fPIC", "-std=c++20", f"-I{torch / 'include'}"]
    subprocess.run(["g++", *flags, HOOKS, "-o", out, *libraries], check=True, timeout=300)
    return out
