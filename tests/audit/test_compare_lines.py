from collagan_dist.audit.compare_lines import compare_lines, noise_of
from collagan_dist.audit.record import LoggedPart, Stretch

STRETCH = Stretch(3, 6)


def lines(factor: float = 1.0, steps: tuple[int, ...] = (4, 6)) -> list[dict]:
    times = {"images_per_s": 1.0 / factor, "data_wait_share": 0.1 * factor}
    return [
        {"kind": "train", "step": step, "loss/total": step * factor, "accuracy/x": 0.5 * factor, **times}
        for step in steps
    ]


def logged(rows: list[dict], starts: tuple[int, ...] = (3,)) -> LoggedPart:
    return LoggedPart(rows, [(step, {}) for step in starts], (0, *starts), True)


def test_times_are_not_compared_and_losses_are():
    found = compare_lines(logged(lines()), lines(), STRETCH, None, True)
    assert (found.compared, found.left_out, found.differing) == (2, (), ())
    found = compare_lines(logged(lines(1.0001)), lines(), STRETCH, None, True)
    assert found.differing[:2] == ("step 4: accuracy/x: 0.50005 -> 0.5", "step 4: loss/total: 4.0004 -> 4.0")


def test_bounds_are_five_times_the_twin_and_at_least_a_fiftieth():
    for noise, factor, differs in ((1.0, 1.01, False), (1.0, 1.03, True), (1.02, 1.08, False), (1.02, 1.5, True)):
        twin = noise_of(lines(), lines(noise), {})
        assert bool(compare_lines(logged(lines(factor)), lines(), STRETCH, twin, True).differing) == differs


def test_what_jumps_is_compared_only_where_bits_are():
    """Accuracies of few patches, and landmarks at the largest pixel of a heatmap, with their standard errors."""
    one, other = (
        {"kind": "eval", "step": 6, "landmark_error": {"nose": v}, "se": {"landmark_error": {"nose": v}}}
        for v in (9.0, 10.0)
    )
    assert len(compare_lines(logged([one]), [other], STRETCH, None, True).differing) == 2
    assert compare_lines(logged([one]), [other], STRETCH, {}, True).differing == ()


def test_means_of_other_steps_are_left_out():
    """A start at step 5 began the means of the line of step 6 anew; a log that goes on from step 2 has longer ones."""
    found = compare_lines(logged(lines(), (3, 5)), lines(1.5), STRETCH, None, True)
    assert (
        found.left_out == ("train line of step 6: its means begin at another step than here",) and found.compared == 1
    )
    found = compare_lines(logged(lines(), (2,)), lines(), STRETCH, None, True)
    assert found.compared == 1 and found.left_out[0].startswith("train line of step 4: ")


def test_a_missing_line_differs_unless_a_start_changed_what_is_logged():
    found = compare_lines(logged(lines(steps=(6,))), lines(), STRETCH, None, True)
    assert "step 4: metrics.jsonl has no train line" in found.differing
    assert compare_lines(logged(lines(steps=(6,)), (3, 5)), lines(), STRETCH, None, True).differing == ()
    # The last step is always logged here.
    assert compare_lines(logged(lines(steps=(4,))), lines(), STRETCH, None, True).differing == ()
