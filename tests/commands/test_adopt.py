"""The first hour of somebody who has tars: adopt, verify, train, evaluate."""

import json
import re
import shlex

from tests.commands.conftest import SMALL
from tests.data.wds_tars import by_tar, stored_samples


def test_from_tars_to_an_evaluation(collagan, shards, tmp_path):
    """Faces without landmarks, captions beside them, in tars by tar(1): what can be trained is said, and is trained."""
    tars = tmp_path / "my faces"
    for split, name in (("train", "train-000.tar"), ("valid", "val.tar"), ("test", "test.tar")):
        samples = {
            key: {"jpg": members["jpg"], "Seg.PNG": members["seg.png"], "txt": b"a face", "cls": b"0"}
            for one in stored_samples(shards, split)
            for key, members in one.items()
        }
        by_tar(tars / name, {"0.1/" + key: members for key, members in samples.items()}, "--sort=name")
    done = collagan("adopt", tars, "--workers", 1)
    assert done.code == 0 and "train: 48 samples in 1 tar\nvalid: 6 samples in 1 tar\n" in done.out, done.err
    assert "no landmarks (in KEY.json): landmarks cannot be trained" in done.out and "no label maps" not in done.out
    assert "models that can be trained (--model): M_i M_s M_is M*_i M*_is CE SII GFC\n" in done.out
    assert "not used: .cls (60), .txt (60)" in done.out and "next: collagan verify" in done.out
    again = collagan("adopt", tars)
    assert (
        again.code == 0
        and "was adopted already; sizes and indexes are unchanged" in again.out
        and "next:" not in again.out
    )
    assert "undamaged (48 train, 6 valid, 6 test samples" in collagan("verify", tars, "--deep").out
    model = re.search(r"train demo --model (\S+) --data", done.out)[1]
    assert model == "M_is"
    run = tmp_path / "run"
    for dry in ([], ["--dry-run"]):
        refused = collagan("train", "demo", "--data", tars, "--run", run, "--model", "M_isd", *SMALL, *dry)
        assert refused.code == 3 and "has no landmarks" in refused.err and "train --model M_is," in refused.err
    assert collagan("train", "demo", "--data", tars, "--run", run, "--model", model.strip("'"), *SMALL).code == 0
    assert collagan("evaluate", run, "--split", "test").code == 0
    found = json.loads((run / "metrics.json").read_text())
    assert found["samples"] == 6 and "dice" in found and "landmark_error" not in found


def test_one_tar_of_any_name_trains(collagan, shards, tmp_path):
    """Also one that is called after another split; its name decides if that is asked for."""
    (samples,) = stored_samples(shards, "valid")
    many = {f"{n}-{key}": one for n in range(5) for key, one in samples.items()}
    for folder in ("one", "two"):
        by_tar(tmp_path / folder / "my-test.tar", many, "--sort=name")
    done = collagan("adopt", tmp_path / "one", "--workers", 1)
    assert done.code == 0 and "`--split-by names` takes all of it as test\n" in done.out, done.err
    (line,) = (line for line in done.out.splitlines() if line.startswith("collagan train demo"))
    assert collagan(*shlex.split(line)[1:], "--run", tmp_path / "run", *SMALL, "--set", "evaluate.every=0").code == 0
    named = collagan("adopt", tmp_path / "two", "--split-by", "names", "--workers", 1)
    assert (
        "test: 30 samples in 1 tar\n" in named.out
        and f"evaluate MODEL --data {tmp_path / 'two'} --split test" in named.out
    )
    refused = collagan("train", "demo", "--data", tmp_path / "two", "--run", tmp_path / "no", *SMALL)
    assert refused.code == 3 and "there is no split 'train'; this data set has test: give one of these" in refused.err


def test_what_is_wrong_is_one_message(collagan, tmp_path):
    (tmp_path / "train.tar").write_bytes(b"\x1f\x8b no tar")
    done = collagan("adopt", tmp_path)
    assert done.code == 3 and done.err.startswith("collagan adopt: ") and "train.tar: is compressed" in done.err, (
        done.err
    )
    assert collagan("adopt", tmp_path / "no").code == 3
    done = collagan("adopt", "https://user:password@example.org/0.tar", "--out", tmp_path / "out")
    assert done.code == 2 and "password" not in done.err.replace("without password", "")
    assert collagan("adopt", "https://example.org/0.tar").code == 2
