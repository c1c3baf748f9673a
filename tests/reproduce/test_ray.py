"""`collagan reproduce --ray` on a real Ray node."""

import shutil

from tests.reproduce.small import TABLE_3, content, ended, start, words, write_small
from tests.sweep.ray_nodes import ray_nodes


def test_ray_does_what_one_process_does(undisturbed, shards, tmp_path):
    """Of M_d the evaluation, which is missing; M_id cannot start."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed / "runs/M_d", out / "runs/M_d", ignore=shutil.ignore_patterns("evaluation"))
    (out / "runs/M_id").write_text("in the way")
    with ray_nodes(1, cpus=2) as (address, _):
        command = words(write_small(tmp_path), shards.folder, out, *TABLE_3, "--ray", address)
        _, err = ended(start(*command), 2)
    assert "M_id: failed" in err and "M_d: done" in err and "collagan reproduce: M_id failed" in err
    assert content(out)["table3.json"]["cells"]["M_d"] == content(undisturbed)["table3.json"]["cells"]["M_d"]
