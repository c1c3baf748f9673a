from collagan_dist.distributed.rank_status import RankStatus


def test_the_innermost_collective_is_waited_in():
    status = RankStatus()
    assert (status.position, status.collective, status.waiting) == ("the start", "a collective", None)
    status.step = 7
    with status.waiting_in("the gradient"):
        with status.waiting_in("batch normalization"):
            assert status.collective == "batch normalization"
        assert status.collective == "the gradient" and status.position == "step 7"
    assert status.waiting is None
