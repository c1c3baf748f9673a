import json


def test_lines_and_json_report_the_same(collagan, tmp_path, monkeypatch):
    """Of a folder that is no data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    for _ in range(5):
        # What listens changes while other tests run processes: only lines between two equal reports are compared with them.
        before, lines, after = (
            collagan("doctor", "--data", tmp_path, *more) for more in (("--json",), (), ("--json",))
        )
        told = [[[c["state"], c["check"]] for c in json.loads(report.out)["checks"]] for report in (before, after)]
        if told[0] == told[1]:
            break
    assert lines.code == after.code == 4 and not json.loads(after.out)["sound"]
    assert [line.split()[:2] for line in lines.out.splitlines()] == told[0] == told[1]
    assert any(line.startswith("failed") and "manifest.json" in line for line in lines.out.splitlines())
