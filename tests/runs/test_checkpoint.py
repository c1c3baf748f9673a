import hashlib
import json
import os
import pickle
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

import collagan_dist
from collagan_dist import files
from collagan_dist.errors import CheckpointError, ClusterError
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import checkpoint_dir, checkpoint_steps
from tests.faults.damages import DAMAGES, damage, rounds
from tests.runs.run_folders import rewrite_state
from tests.runs.test_lease import take_lease
from tests.training.small import equal


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    values = torch.randn(3000, generator=torch.Generator().manual_seed(step))
    return {"generator": {"a": values, "b": values[:7].to(torch.bfloat16)}, "optimizer": {"a/step": torch.tensor(step)}}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    checkpoint.save(folder, step, tensors(step), {"step": step}, keep)
    return checkpoint_dir(folder, step)


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """The newer one of two checkpoints, of steps 8 and 9."""
    save(tmp_path / "checkpoints", 8)
    return save(tmp_path / "checkpoints", 9)


def test_the_library_reads_every_kind_of_tensor():
    """Each is aligned to its elements, so that a reader may map it."""
    values = {f"{kind}": torch.tensor([0, 1, 1]).to(kind) for kind in checkpoint._DTYPES}
    values |= {"scalar": torch.tensor(7), "none": torch.zeros(0, 3), "ü": torch.ones(2, 1, 3)}
    content = b"".join(bytes(piece) for piece in checkpoint.tensor_pieces(values))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert all(header[name]["data_offsets"][0] % tensor.element_size() == 0 for name, tensor in values.items())
    again = safetensors.torch.load(content)
    assert equal(again, values) and all(again[name].dtype == tensor.dtype for name, tensor in values.items())
    assert len(content) == checkpoint._file_size(values)


def test_what_was_saved_is_loaded(newest):
    loaded = checkpoint.load_latest(newest.parent)
    assert loaded.path == newest and loaded.state == {"format": 2, "step": 9} and is_step_9(loaded)
    manifest = json.loads((newest / "manifest.json").read_bytes())
    assert manifest["sha256"].keys() == {"generator.safetensors", "optimizer.safetensors", "state.json"}
    for path in newest.glob("*.safetensors"):
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}  # transformers refuses a file without
    assert checkpoint.load_latest(newest.parent / "nowhere") is None


def is_step_9(loaded: checkpoint.LoadedCheckpoint) -> bool:
    expected = tensors(9)
    return loaded.tensors.keys() == expected.keys() and all(equal(loaded.tensors[n], t) for n, t in expected.items())


def test_the_newest_ones_are_kept(tmp_path):
    for step in (2, 4, 6, 8):
        save(tmp_path, step)
    (tmp_path / ".step-00000008-0a1b2c3d").mkdir()
    (tmp_path / ".old-00000002").mkdir()
    checkpoint.remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]
    checkpoint.prune(tmp_path, 8, 1)
    assert checkpoint_steps(tmp_path) == [8]


def test_a_damaged_later_checkpoint_does_not_push_out_undamaged_ones(tmp_path):
    """The run went back from step 4 to step 2: step 4 does not count among those to keep, and is written again."""
    save(tmp_path, 2)
    (save(tmp_path, 4) / "state.json").write_text("{")
    save(tmp_path, 3, keep=1)
    assert checkpoint_steps(tmp_path) == [3, 4]
    assert checkpoint.load_latest(tmp_path).state["step"] == 3
    assert checkpoint.load(save(tmp_path, 4)).state["step"] == 4 and checkpoint_steps(tmp_path) == [3, 4]


def test_a_write_that_fails_in_the_middle(tmp_path, limit_file_size):
    """A file that grows beyond its limit, which the free space does not foretell: nothing half written stays."""
    save(tmp_path, 1)
    limit_file_size(10_000)
    with pytest.raises(checkpoint.WriteFailed, match="step-00000002: no space left; it needs") as error:
        save(tmp_path, 2)
    limit_file_size(None)
    assert error.value.needed > 12_000 and error.value.free > error.value.needed
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_checkpoint_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    """A disk filled to its last byte would stop everybody else who writes there."""
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)
    with pytest.raises(checkpoint.WriteFailed, match=r"no space left; it needs .* bytes, 1000 are free"):
        save(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_start_that_lost_its_lease_commits_nothing(tmp_path):
    first = take_lease(tmp_path)
    take_lease(tmp_path).release()
    with pytest.raises(ClusterError, match="has taken over"):
        checkpoint.save(tmp_path / "checkpoints", 2, tensors(2), {"step": 2}, 2, first)
    assert not list((tmp_path / "checkpoints").iterdir())
    first.release()


@rounds(40, 400)
def test_damaged_checkpoints(newest, tmp_path, rounds, record, capsys):
    """Whatever changes in any file: it is named, and the former checkpoint taken; never another number loaded."""
    folder, copy, found = newest.parent, shutil.copytree(newest, tmp_path / "copy"), Counter()
    for number in range(rounds):
        at = random.Random(number)
        file = at.choice(sorted(newest.iterdir()))
        if number % 6 == 5:
            file.unlink()
        else:
            damage(file, DAMAGES[number % 6], at)
        loaded, said = checkpoint.load_latest(folder), capsys.readouterr().err
        if loaded.path == newest:  # a changed blank of manifest.json changes nothing
            assert file.name == "manifest.json" and is_step_9(loaded)
            found["harmless"] += 1
        else:
            assert loaded.state["step"] == 8 and len(said.splitlines()) == 1 and str(newest) in said
            assert file.name == "manifest.json" or file.name in said, said
            with pytest.raises(CheckpointError, match=r"run without --strict"):
                checkpoint.load_latest(folder, strict=True)
            found["former taken"] += 1
        shutil.rmtree(newest)
        shutil.copytree(copy, newest)
    assert found["former taken"] >= 0.9 * rounds
    record("29", rounds=rounds, **found)


def test_nothing_is_loaded_where_all_are_damaged(newest):
    for path in newest.parent.iterdir():
        (path / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint is undamaged; remove the folder to start anew"):
        checkpoint.load_latest(newest.parent)


@pytest.fixture
def as_stranger() -> Iterator[Path]:
    """A folder that everybody may reach, while this process has the rights of no particular user."""
    folder = Path(tempfile.mkdtemp(prefix="collagan-test-"))
    folder.chmod(0o755)
    yield folder
    os.seteuid(os.getuid())
    shutil.rmtree(folder)


def become_stranger() -> None:
    if os.getuid() == 0:  # whom no permission stops
        os.seteuid(65534)


@pytest.mark.parametrize(
    "closed", ["step-00000009/generator.safetensors", "step-00000009/state.json", "step-00000009", "."]
)
def test_what_cannot_be_read_is_not_damaged(as_stranger, closed):
    """The run would go on from the checkpoint before it, and overwrite what is only out of reach for now."""
    for step in (8, 9):
        save(as_stranger / "checkpoints", step)
    (as_stranger / "checkpoints" / closed).chmod(0)
    become_stranger()
    with pytest.raises(checkpoint.Unreadable, match=r"cannot be read .Permission denied.; give this user access"):
        checkpoint.load_latest(as_stranger / "checkpoints")
    os.seteuid(os.getuid())
    (as_stranger / "checkpoints" / closed).chmod(0o755)
    assert checkpoint.load_latest(as_stranger / "checkpoints").state["step"] == 9


class Bomb:
    """Unpickled, it leaves a file `canary` in the working directory."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch canary",)


def add_file(path: Path, name: str, content: bytes | None = None, sha256: str | None = None) -> None:
    """Put a file into a checkpoint and its manifest."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    if content is not None:
        (path / name).write_bytes(content)
    manifest["sha256"][name] = sha256 or hashlib.sha256(content or b"").hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace_file(path: Path, name: str, create: Callable[[Path], object]) -> None:
    (path / name).unlink()
    create(path / name)


def edit_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_nothing_foreign_is_run_or_followed(newest, tmp_path, monkeypatch):
    """A checkpoint made to harm: pickles of all makes, false sizes and names, links and pipes. Each is refused by name."""
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb())
    secret = tmp_path / "secret.safetensors"
    safetensors.torch.save_file({"secret": torch.ones(3)}, secret)
    torch.save({"a": Bomb()}, tmp_path / "zipped.pt")
    zipped = (tmp_path / "zipped.pt").read_bytes()
    huge = (1 << 62).to_bytes(8, "little") + b"{}"
    deep = b'{"step": 9, "format": 2, "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    hash_of = hashlib.sha256(secret.read_bytes()).hexdigest()
    cases = {
        "generator.pt": lambda path: add_file(path, "generator.pt", bomb),
        ".metadata": lambda path: add_file(path, ".metadata", bomb),
        "zero_optim_states.pt": lambda path: add_file(path, "zero_optim_states.pt", bomb),
        "damaged": lambda path: add_file(path, "generator.safetensors", bomb),
        "is damaged": lambda path: add_file(path, "generator.safetensors", huge),
        "nested more than 64 deep": lambda path: add_file(path, "state.json", deep),
        "manifest.json": lambda path: add_file(path, "manifest.json", sha256=hash_of),
        "../secret.safetensors": lambda path: add_file(path, "../secret.safetensors", sha256=hash_of),
        str(secret): lambda path: add_file(path, str(secret), sha256=hash_of),
        "generator.safetensors is no plain file": lambda path: replace_file(path, "generator.safetensors", lambda file: file.symlink_to(secret)),
        "safetensors is no plain file": lambda path: replace_file(path, "generator.safetensors", os.mkfifo),
        "too many": lambda path: os.truncate(path / "generator.safetensors", 1 << 42),
        "are too many": lambda path: os.truncate(path / "manifest.json", 1 << 40),
        "needs keys and values": lambda path: (path / "manifest.json").write_text("[]"),
        "does not name state.json": lambda path: (path / "manifest.json").write_text('{"sha256": {}, "step": 9}'),
        "different steps": lambda path: rewrite_state(path, lambda state: state.update(step=7)),
        "format: needs": lambda path: rewrite_state(path, lambda state: state.update(format="../2")),
    }  # fmt: skip
    names = ["generator.safetensors/../../secret.safetensors", "/dev/zero", "a/generator.safetensors", "generator.safetensors.", "..",
             "generator.safetensors\n", "Generator.safetensors", "x.pt.generator.safetensors", "", "manifest.json", "generator.bin"]  # fmt: skip
    more = [
        *(("which is no file of a checkpoint", lambda path, name=name: add_file(path, name, sha256=hash_of)) for name in names),
        *((f"{name} is no plain file", lambda path, name=name, how=how: replace_file(path, name, how))
          for name in ("state.json", "manifest.json", "optimizer.safetensors")
          for how in (os.mkfifo, Path.mkdir, lambda file: file.symlink_to(secret), lambda file: file.symlink_to("/dev/zero"))),
        ("generator.safetensors is damaged or edited", lambda path: replace_file(path, "generator.safetensors", lambda f: shutil.copy(secret, f))),
        ("state.json is damaged or edited", lambda path: (path / "state.json").write_text('{"format": 2, "step": 9, "extra": 1}')),
        ("is of format 3", lambda path: rewrite_state(path, lambda state: state.update(format=3))),
        *(("format", lambda path, value=value: rewrite_state(path, lambda state: state.update(format=value))) for value in (0, -1, True, 2.0, None)),
        *(("step", lambda path, value=value: rewrite_state(path, lambda state: state.update(step=value))) for value in (True, 9.0, "9", -9)),
        *(("sha256", lambda path, value=value: edit_manifest(path, sha256=value)) for value in (None, [], "x", {"state.json": 3})),
        *(("is damaged", lambda path, content=content: add_file(path, "generator.safetensors", content))
          for content in (b"", b"\0" * 8, b"\xff" * 8, (2).to_bytes(8, "little") + b"[]", zipped, secret.read_bytes()[:-1])),
    ]  # fmt: skip
    for number, (reason, harm) in enumerate([*cases.items(), *more]):
        path = Path(shutil.copytree(newest, tmp_path / f"{number}/step-00000009"))
        harm(path)
        with pytest.raises(CheckpointError) as refused:
            checkpoint.load(path)
        assert reason in str(refused.value) and str(path) in str(refused.value), (reason, str(refused.value))
    assert not Path("canary").exists()


UNSAFE = re.compile(
    r"\b(torch|yaml|dcp)\.load\(|\.extract(?:all)?\(|weights_only *="
    r"|torch\.distributed(\.| import .*)checkpoint|from torch import .*\bload\b"
    r"|(gather|broadcast|scatter|send|recv)_object(_list)?\b|\bjit\.load\b|allow_pickle *= *True|\b(cloud)?pickle\.\w|UnsafeLoader|FullLoader"
    r"|import torch as|from (yaml|pickle|marshal|shelve|dill) import|(unsafe|full)_load\b|torch\.(package|hub|serialization)|export\.load\("
    r"|\b(import|from) (pickle|marshal|shelve|dill|joblib|cloudpickle)\b|(?<![\w.])(eval|exec|__import__)\(|getattr\(torch,|os\.system|shell=True"
)


def test_nothing_in_the_package_can_unpickle():
    found = {path: UNSAFE.findall(path.read_text()) for path in Path(collagan_dist.__file__).parent.rglob("*.py")}
    assert not any(found.values()), {path: words for path, words in found.items() if words}
    for text in ("torch.load(x)", "f(weights_only=False)", "yaml.load(x)", "tar.extractall()", "dcp.load(x)",
                 "from torch.distributed import checkpoint", "from torch import load", "dist.all_gather_object(a, b)",
                 "dist.broadcast_object_list(a)", "torch.jit.load(x)", "np.load(x, allow_pickle=True)", "pickle.loads(x)",
                 "yaml.UnsafeLoader", "import torch as t", "yaml.unsafe_load(x)", "yaml.full_load(x)", "from yaml import load", "import pickle",
                 "from pickle import loads", "import marshal", "torch.hub.load(x)", "torch.serialization.load(x)", "eval(x)", "exec(x)",
                 "getattr(torch, name)(x)", "torch.export.load(x)", "os.system(x)", "run(x, shell=True)", "__import__(x)"):  # fmt: skip
        assert UNSAFE.search(text), text
