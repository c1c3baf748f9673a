import subprocess
import sys

from tests.reproduce.small import words, write_small


def test_a_dry_run_prints_every_run_and_does_not_import_torch(shards, tmp_path):
    """Whose import takes longer than the answer."""
    code = (
        "import sys; from collagan_dist.commands.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('torch' in sys.modules)"
    )
    more = ("--tables", "3", "--figures", "", "--seeds", "2", "--dry-run")
    command = words(write_small(tmp_path), shards.folder, tmp_path / "out", *more)
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("False\n"), done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["M_d", "3", "12", "0%", "unknown", "unknown"] in rows and ["21", "84", "unknown", "unknown"] in rows
    assert (
        " ".join(row[0] for row in rows if row[1:2] == ["3"]) == "M*_isd M*_isd-seed1 M_isd M_isd-seed1 M_id M_d M*_id"
    )
    assert not (tmp_path / "out").exists()
