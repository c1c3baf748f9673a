import json

from collagan_dist.report.evaluation import is_number, parse_evaluation


def test_a_real_evaluation(run):
    raw = json.loads((run / "metrics.json").read_text())
    item = parse_evaluation(raw)
    assert item.values["psnr"] == raw["psnr"] and item.values["dice/face"] == raw["dice"]["face"]
    assert item.baselines["biharmonic"]["psnr_hole"] == raw["baselines"]["biharmonic"]["psnr_hole"]
    assert (item.split, item.hole, item.blend, item.samples, item.step) == ("test", "block", "", raw["samples"], 12)


def test_what_says_how_it_was_measured_is_no_metric():
    about = {"samples": 4, "step": 9, "damaged": 1, "ranks": 2, "precision": "bf16", "settings": {"noise": 1}}
    about |= {"machine": {"ranks": 2, "threads": "1"}, "version": "0.1.0"}
    assert parse_evaluation({"psnr": 27.0, **about}).values == {"psnr": 27.0}


def test_flattened_keys_read_like_nested_ones():
    nested = {"psnr": 27.0, "dice": {"face": 0.8, "mean": 0.7}, "se": {"psnr": 0.2}, "baselines": {"flat": {"psnr": 2}}}
    flat = {"psnr": 27.0, "dice/face": 0.8, "dice.mean": 0.7, "se/psnr": 0.2, "baselines/flat/psnr": 2}
    assert parse_evaluation(nested) == parse_evaluation(flat)


def test_the_run_beside_baselines_of_the_first_samples():
    raw = {"psnr": 27.0, "ssim": 0.9, "samples": 400, "se": {"psnr": 0.2}, "baselines": {"flat": {"psnr": 20.0}}}
    assert parse_evaluation(raw).beside_baselines("psnr") == (27.0, 0.2)
    part = parse_evaluation(raw | {"baselines_subset": {"samples": 100, "model": {"psnr": 26.0}}})
    assert part.beside_baselines("psnr") == (26.0, 0.4)  # a quarter of the samples, twice the error
    assert part.beside_baselines("ssim") == (0.9, None) and part.values == parse_evaluation(raw).values


def test_only_holes_at_positions_can_be_fixed():
    raw = {"split": "test", "hole": "O1", "blend": "none", "psnr": 20.0}
    fixed, landmarks = (parse_evaluation({**raw, "settings": {"positions": p}}) for p in ("fixed", "landmarks"))
    block = parse_evaluation({**raw, "hole": "block", "settings": {"positions": "fixed"}})
    assert fixed.subject != landmarks.subject and "fixed" in fixed.name and "fixed" not in block.name


def test_numbers():
    assert is_number(1) and is_number(0.5)
    assert not any(is_number(value) for value in (True, None, "1", float("nan"), float("inf")))
