import numpy as np

from collagan_dist.inference.sheet import draw_sheet, with_note


def test_pictures_keep_their_pixels_below_their_heads():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    sheet = draw_sheet([[picture, picture[:16, :16]], [None, picture]], ["one\nline more", "other"], side=60)
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 20 + 10 + 2 * 64 + 5, 2 * 64 + 5, 3)
    below = sheet[50:]
    np.testing.assert_array_equal(below[:64:2, :64:2], picture)
    np.testing.assert_array_equal(below[:64:4, 69::4], picture[:16, :16])  # as large as the others
    np.testing.assert_array_equal(below[69::2, 69::2], picture)
    assert (below[69:, :64] == 255).all()
    head = sheet[:45]
    # Two lines above the first column, one above the second.
    assert [(head[20 * line : 20 * line + 20, at : at + 64] < 99).any() for at in (0, 69) for line in (0, 1)] == [
        True, True, False, True,
    ]  # fmt: skip


def test_texts_beside_rows_and_below_groups():
    white = np.full((40, 40, 3), 255, np.uint8)
    sheet = draw_sheet([[white] * 4] * 2, left=["", "a row"], below=["", "group"], side=40)
    dark_YX = np.argwhere((sheet < 99).any(axis=2))
    margin, row, foot = sheet.shape[1] - 4 * 45 + 5, 45, 2 * 45 - 5
    beside, below = (dark_YX[dark_YX[:, 1] < margin], dark_YX[dark_YX[:, 1] >= margin])
    assert len(beside) and beside[:, 0].min() > row and beside[:, 0].max() < foot
    assert len(below) and below[:, 0].min() > foot
    # In the middle of the second half.
    assert abs(below[:, 1].mean() - (margin + 3 * 45)) < 4


def test_a_note_widens_the_sheet_where_it_is_longer():
    sheet = np.zeros((10, 20, 3), np.uint8)
    noted = with_note(sheet, "longer than the sheet")
    assert noted.shape[0] == 40 and noted.shape[1] > 100
    at = (noted.shape[1] - 20) // 2
    assert not noted[:10, at : at + 20].any() and (noted[:10, :at] == 255).all() and (noted[10:] < 99).any()
