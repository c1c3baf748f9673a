"""Commands that read a run folder: complete, evaluate, export, report."""

import json
import shutil
from pathlib import Path


def test_complete(collagan, trained, drawn, tmp_path):
    for hole in ("O1", "block", "pattern", "noise"):
        out = tmp_path / hole
        result = collagan("complete", trained, drawn / "Img/img_celeba/000001.jpg", "--out", out, "--hole", hole)
        assert result[:2] == (0, f"see {out / '000001.sheet.png'}\n1 completed, 0 left out\n")
        assert (out / "000001.completed.png").is_file()
    result = collagan("complete", trained, tmp_path / "none.jpg", "--out", tmp_path / "other")
    assert result.code in (2, 3) and "none.jpg" in result.err and not (tmp_path / "other").exists()


def test_evaluate_writes_a_table_and_a_file_for_each_hole(collagan, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    result = collagan("evaluate", run, "--hole", "block,O1", "--split", "valid", "--set", "evaluate.baselines=0")
    files = [run / "evaluation" / f"valid-{hole}.json" for hole in ("block", "O1")]
    assert result.code == 0 and all(str(file) in result.out for file in files)
    assert result.out.count("PSNR in the hole, dB") == 2 and "6 valid samples, O1 holes" in result.out
    assert f" {json.loads(files[0].read_text())['psnr']:.2f} " in result.out
    assert "--set model.name=ce" in collagan("evaluate", run, "--set", "model.name=ce").err


def test_export_takes_the_newest_checkpoint(collagan, trained, tmp_path):
    result = collagan("export", trained, "--out", tmp_path / "model")
    assert result.code == 0 and "M*_isd of step 2: " in result.out and "generator.safetensors" in result.out
    assert collagan("export", tmp_path / "none", "--out", tmp_path / "other").code == 2


def test_report_prints_its_path(collagan, trained, tmp_path):
    path = tmp_path / "page.html"
    assert collagan("report", trained, "--out", path) == (0, f"{path}\n", "") and path.is_file()
