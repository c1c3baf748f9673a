import pytest

from collagan_dist.audit.compare_lines import Expected, LineComparison, Noise, compare_lines, noise_of
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


def compare(logged: LoggedPart, found: list[dict], noise: Noise | None = None, at_end: tuple = ()) -> LineComparison:
    return compare_lines(logged, found, Expected(STRETCH, at_end=frozenset(at_end)), noise)


def test_times_are_not_compared_and_losses_are():
    found = compare(logged(lines()), lines())
    assert (found.compared, found.left_out, found.differing) == (2, (), ())
    found = compare(logged(lines(1.0001)), lines())
    assert found.differing[:2] == ("step 4: accuracy/x: 0.50005 -> 0.5", "step 4: loss/total: 4.0004 -> 4.0")


def test_bounds_are_five_times_the_twin_and_at_least_a_fiftieth():
    for noise, factor, differs in ((1.0, 1.01, False), (1.0, 1.03, True), (1.02, 1.08, False), (1.02, 1.5, True)):
        twin = noise_of(lines(), lines(noise), {})
        assert bool(compare(logged(lines(factor)), lines(), twin).differing) == differs


def test_what_jumps_is_compared_only_where_bits_are():
    """Accuracies of few patches, and landmarks at the largest pixel of a heatmap, with their standard errors."""
    one, other = (
        {"kind": "eval", "step": 6, "landmark_error": {"nose": v}, "se": {"landmark_error": {"nose": v}}}
        for v in (9.0, 10.0)
    )
    assert len(compare(logged([one]), [other]).differing) == 2
    assert compare(logged([one]), [other], {}).differing == ()


def test_means_of_other_steps_are_left_out():
    """A start at step 5 began the means of the line of step 6 anew; a log that goes on from step 2 has longer ones."""
    found = compare(logged(lines(), (3, 5)), lines(1.5))
    assert (
        found.left_out == ("train line of step 6: its means begin at another step than here",) and found.compared == 1
    )
    found = compare(logged(lines(), (2,)), lines())
    assert found.compared == 1 and found.left_out[0].startswith("train line of step 4: ")


def test_a_missing_line_differs_unless_a_start_changed_what_is_logged():
    found = compare(logged(lines(steps=(6,))), lines())
    assert "step 4: metrics.jsonl has no train line" in found.differing
    assert compare(logged(lines(steps=(6,)), (3, 5)), lines()).differing == ()
    # The last step is always logged here, and by the run where it was due.
    found = [
        compare(logged(lines(steps=(4,))), lines(), None, at_end).differing for at_end in ((), ("train",), ("eval",))
    ]
    assert found == [(), ("step 6: metrics.jsonl has no train line",), ()]
    # A log that was lost before step 3 does not have them all.
    found = compare(logged(lines(steps=(6,)), (4,)), lines())
    assert found.differing == () and "metrics.jsonl has no start up to step 3: lines may be missing" in found.left_out


def test_an_invented_line_differs_unless_a_start_changed_what_is_logged():
    more = lines(steps=(4, 5, 6))
    assert "step 5: train line, where the configuration has none" in compare(logged(more), lines()).differing
    found = compare(logged(more, (3, 5)), lines())
    assert found.differing == () and found.left_out[0].startswith("train line of step 5: the configuration of the end")


@pytest.mark.parametrize(
    ("lacks", "differs"),
    [
        ({"psnr": 1.0}, True), ({"dice": {"mean": 0.5}}, True), ({"dice": {"nose": 0.5}}, False),
        ({"dice_hole": {"nose": 0.5}}, False), ({"se": {"dice": {"nose": 0.5}}}, False), ({"se": {"psnr": 0.5}}, True),
    ],
)  # fmt: skip
def test_roundings_may_take_a_class_from_an_evaluation_and_nothing_else(lacks, differs):
    one, other = ({"kind": "eval", "step": 6, "ssim": 0.5, **more} for more in ({}, lacks))
    for pair in ((one, other), (other, one)):
        assert bool(compare(logged([pair[0]]), [pair[1]], {}).differing) == differs
    assert compare(logged([one]), [other]).differing


def test_what_must_be_exact_is_whatever_the_twin_says():
    found = compare_lines(logged(lines(1.0001)), lines(), Expected(STRETCH), {}, exact=("train",))
    assert found.differing[:1] == ("step 4: accuracy/x: 0.50005 -> 0.5",)
