from collagan_dist.sweep.nodes import MAX_LOSSES, NodeLosses, TrialLosses


def test_a_node_on_which_segments_fail_in_a_row_is_named():
    """One that ends well in between begins the count anew, on its own node alone."""
    losses = NodeLosses()
    assert [losses.failed(["a"], number, "ab") for number in range(MAX_LOSSES - 1)] == [None] * (MAX_LOSSES - 1)
    losses.worked(["b"])
    assert losses.failed(["a"], 7, "ab") == "a"
    losses.worked(["a"])
    assert losses.failed(["a"], 8, "ab") is None


def test_a_configuration_that_fails_everywhere_costs_no_node():
    """Whether its losses on another node come after those here or before; others' losses tell of the node."""
    for first, then in (("aaa", "b"), ("b", "aaa")):
        losses = NodeLosses()
        named = [losses.failed([node], 5, "ab") for node in first]
        assert named == [None] * (len(first) - 1) + ["a" if first == "aaa" else None]
        assert [losses.failed([node], 5, "ab") for node in then] == [None] * len(then)
        assert "a" in losses.explained()
        assert losses.failed(["a"], 6, "ab") == "a" and "a" not in losses.explained()


def test_losses_that_tell_nothing_of_a_node_are_not_counted():
    """Of several nodes any may be the cause; a node that is gone is no node that fails; and the unknown is nobody's fault."""
    losses = NodeLosses()
    for nodes, alive in ((["a", "b"], "ab"), (["a"], "b"), ([], "ab")):
        assert [losses.failed(nodes, number, alive) for number in range(2 * MAX_LOSSES)] == [None] * 2 * MAX_LOSSES
    assert [losses.failed(["a"], 0, "a") for _ in range(MAX_LOSSES)][-1] == "a"


def test_a_trial_that_saves_between_losses_is_not_given_up():
    losses = TrialLosses()
    assert [losses.lost(0, saved) for saved in (0, 0, 0, 4, 8, 8)] == [1, 2, 3, 1, 1, 2]
    assert losses.lost(1, 8) == 1
    losses.ended(0)
    assert losses.lost(0, 8) == 1
