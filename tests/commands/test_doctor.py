import json


def test_lines_and_json_report_the_same(collagan, tmp_path, monkeypatch):
    """Of a folder that is no data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    lines, report = (collagan("doctor", "--data", tmp_path, *more) for more in ((), ("--json",)))
    checks = json.loads(report.out)["checks"]
    assert lines.code == report.code == 4 and not json.loads(report.out)["sound"]
    # What listens may have changed between the two: other tests run processes of ours meanwhile.
    told = [line.split()[:2] for line in lines.out.splitlines()]
    assert [check for _, check in told] == [c["check"] for c in checks]
    assert [t for t in told if t[1] != "ports"] == [[c["state"], c["check"]] for c in checks if c["check"] != "ports"]
    assert any(line.startswith("failed") and "manifest.json" in line for line in lines.out.splitlines())
