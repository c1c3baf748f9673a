import numpy as np

from collagan_dist.inference.face_model import GIVEN, load_face_model
from collagan_dist.runs.model_folder import read_config


def test_faces_are_seen_alike_alone_and_in_batches(trained_run):
    """20 faces, so more than a batch; random numbers derive from names without their folders."""
    model, _ = load_face_model(trained_run, read_config(trained_run))
    faces = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    holes = np.stack([model.make_hole("block", str(n)) for n in range(20)])
    assert holes.shape == (20, 32, 32) and (holes.sum((1, 2)) == 256).all() and (holes[0] != holes[1]).any()
    points, peaks = model.find_landmarks(faces, holes, [f"a/{n}" for n in range(20)])
    assert points.shape == (20, 5, 2) and peaks.shape == (20,)
    for n in (0, 19):
        one, peak = model.find_landmarks(faces[n : n + 1], holes[n : n + 1], [str(n)])
        np.testing.assert_allclose(peak[0], peaks[n], atol=1e-5)
        assert np.abs(one[0] - points[n]).max() <= 1
    batch = model.batch(faces[:2], holes[:2], GIVEN, ["x/1", "2"])
    assert (batch.input_B3HW == batch.image_B3HW).all(1)[~batch.hole_B1HW[:, 0]].all()


def test_positions_lie_around_landmarks_where_they_are_known(trained_run):
    model, _ = load_face_model(trained_run, read_config(trained_run))
    fixed = model.make_hole("O1", "a")
    moved = model.make_hole("O1", "a", [[20.0, 10.0], [28.0, 10.0], [24.0, 14.0], [21.0, 18.0], [27.0, 18.0]])
    assert fixed.any() and moved[10, 20] and not fixed[10, 20]


def test_statistics_of_a_batch_would_let_pictures_change_one_another(trained_run):
    config = read_config(trained_run, sets=["evaluate.batch_norm=batch"])
    assert load_face_model(trained_run, config)[0].batch_size == 1
