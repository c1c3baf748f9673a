import numpy as np

from collagan_dist.inference.face_parser import run_in_batches


def test_batches_have_one_size_and_outputs_keep_their_order():
    pixels = np.arange(1, 8, dtype=np.uint8)[:, None, None, None] * np.ones((7, 2, 2, 3), np.uint8)
    sizes = []

    def network(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return batch[:, :1, :1, 0].astype(np.float32)

    assert run_in_batches(3, pixels, network).ravel().tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert sizes == [3, 3, 3]
