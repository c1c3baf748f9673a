from collagan_dist import errors


def test_exit_codes():
    kinds = (errors.ConfigError, errors.DataError, errors.ClusterError, errors.CheckpointError, errors.NumericError, errors.Interrupted)  # fmt: skip
    assert [kind("text").exit_code for kind in kinds] == [2, 3, 4, 5, 6, 75]


def test_an_error_of_all_ranks_is_marked_alone():
    assert errors.mark_on_all_ranks(errors.DataError("text")).raised_on_all_ranks
    assert not errors.DataError("text").raised_on_all_ranks and errors.Interrupted("text").raised_on_all_ranks
