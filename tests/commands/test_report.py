import pytest


@pytest.mark.parametrize("damaged", ["damaged\n", '{"kind": "train", "step": "3"}\n', "[" * 20_000 + "\n"])
def test_a_damaged_log_is_drawn_and_said(collagan, tmp_path, damaged):
    (tmp_path / "config.yaml").write_text("schedule: {steps: 10}\n")
    rows = [f'{{"kind": "train", "step": {step}, "lr": 0.5}}\n' for step in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join([*rows[:4], damaged, *rows[4:], damaged]))
    result = collagan("report", tmp_path)
    assert result.code == 0 and result.out == f"{tmp_path / 'report.html'}\n"
    page = (tmp_path / "report.html").read_text()
    assert "2 line(s) of metrics.jsonl are damaged" in page and ": 5, 10." in page and "8 of 10 steps" in page
