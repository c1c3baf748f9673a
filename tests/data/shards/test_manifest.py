import json

import pytest

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.errors import DataError
from tests.faults.test_bad_input import run


def test_no_data_set_behind_a_url(server, capsys):
    code, text = run(capsys, "verify", f"{server.url}/deeper")
    assert code == 3 and f"{server.url}/deeper/manifest.json: there is no such file there" in text
    assert server.requests["manifest.json"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../train-000000.tar"}, {"name": "pipe:touch canary"}, {"name": "http://elsewhere/a.tar"},
        {"sha256": "../../x"}, {"idx_sha256": "0"}, {"bytes": -1}, {"samples": 1.5},
    ],
)  # fmt: skip
def test_a_manifest_names_no_other_places(shards, tmp_path, change):
    data = json.loads((shards.folder / "manifest.json").read_text())
    data["splits"]["train"]["shards"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="is not a manifest"):
        read_manifest(tmp_path)
