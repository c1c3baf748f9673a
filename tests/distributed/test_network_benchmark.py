def test_two_ranks_measure_the_network_between_them(two_ranks):
    for rank in two_ranks:
        assert rank["correct"] is True
        assert [*rank["seconds"]] == ["4096", "1048576", "16777216"] and all(s > 0 for s in rank["seconds"].values())
        ((first, second, seconds, clock_difference),) = rank["round_trips"]
        # Both processes read one clock.
        assert (first, second) == (0, 1) and seconds > 0 and abs(clock_difference) <= seconds
