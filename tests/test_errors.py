from collagan_dist import errors


def test_exit_codes():
    kinds = (errors.ConfigError, errors.DataError, errors.ClusterError, errors.CheckpointError, errors.NumericError, errors.Interrupted)  # fmt: skip
    assert [kind("text").exit_code for kind in kinds] == [2, 3, 4, 5, 6, 75]


def test_an_error_of_all_ranks_is_marked_alone():
    assert errors.mark_on_all_ranks(errors.DataError("text")).raised_on_all_ranks
    assert not errors.DataError("text").raised_on_all_ranks and errors.Interrupted("text").raised_on_all_ranks


def test_a_message_repeats_no_kilobytes_of_a_file():
    text = str(errors.DataError(f"a.json: key: {'x' * 70_000}; mend it\nsecond line"))
    assert text.startswith("a.json: key: xxx") and text.endswith("xxx; mend it\nsecond line") and len(text) < 2000
