"""Writing shards: the standard library's USTAR headers (data/wire.py) against webdataset's TarWriter, samples per CPU-second.

Both get the same bytes to write (picture 10 kB, json, label map) and write to the page cache.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from benchmarks import alternate, save
from collagan_dist.data.wire import ShardFile

COUNT = 2000


def main() -> None:
    import webdataset

    members = {"jpg": os.urandom(10_000), "json": os.urandom(150), "seg.png": os.urandom(1200)}
    folder = Path(tempfile.mkdtemp())

    def ours() -> int:
        with (folder / "a.tar").open("wb") as file:
            shard = ShardFile(file)
            for number in range(COUNT):
                shard.add(f"{number:06d}", members)
            shard.finish()
        return COUNT

    def theirs() -> int:
        with (folder / "b.tar").open("wb") as file:
            writer = webdataset.TarWriter(file, mtime=0, user="", group="", encoder=False)
            for number in range(COUNT):
                writer.write({"__key__": f"{number:06d}", **members})
            writer.close()
        return COUNT

    rates = alternate({"ours": ours, "webdataset TarWriter": theirs})
    first = {name: _reproducible(folder / name, method) for name, method in (("a.tar", ours), ("b.tar", theirs))}
    save(
        __file__,
        {
            "samples_per_cpu_s": rates,
            "ratio": round(rates["ours"] / rates["webdataset TarWriter"], 2),
            "same bytes twice": list(first.values()),
        },
    )


def _reproducible(path: Path, method: object) -> bool:
    before = io.BytesIO(path.read_bytes()).getvalue()
    method()  # type: ignore[operator]
    return path.read_bytes() == before


if __name__ == "__main__":
    main()
