from tests.distributed.two_ranks import two_ranks


def test_gradients_equal_those_of_torchs_class_ddp():
    """Bit for bit, over several buckets, with accumulation, from ranks that began with other parameters."""
    for rank in two_ranks():
        assert rank["ddp"]["ours"] == rank["ddp"]["torch"]
    assert two_ranks()[0]["ddp"] == two_ranks()[1]["ddp"]


def test_a_start_does_not_import_the_compiler():
    """It takes a second of each rank's start; what compiles imports it."""
    found = two_ranks()[0]["ddp"]
    assert not found["compiler imported for ours"] and found["compiler imported for torch"]
