from collagan_dist import errors

CODES = {
    "ConfigError": 2,
    "DataError": 3,
    "ClusterError": 4,
    "CheckpointError": 5,
    "NumericError": 6,
    "Interrupted": 75,
}


def test_exit_codes():
    assert {name: getattr(errors, name)("text").exit_code for name in CODES} == CODES


def test_an_error_of_all_ranks_is_marked_alone():
    assert errors.mark_on_all_ranks(errors.DataError("text")).raised_on_all_ranks
    assert not errors.DataError("text").raised_on_all_ranks and errors.Interrupted("text").raised_on_all_ranks
