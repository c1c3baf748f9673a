import pytest

from collagan_dist.report.charts import eval_charts, train_charts
from collagan_dist.report.run_data import read_run
from tests.report.conftest import ODD_NAME
from tests.runs.run_folders import lines

TASKS = ("inpainting", "segmentation", "landmarks")
LOSSES = {"rec": "Reconstruction loss", "adv": "Adversarial loss of the generator", "disc": "Discriminator loss"}
SINGLE = {
    "loss/total": "Total loss", "lr": "Learning rate", "images_per_s": "Pictures per second",
    "data_wait_share": "Share of time spent waiting for data", "checkpoint_wait_share": "Checkpoint wait share",
}  # fmt: skip
TERMS = "What each term adds to the total loss"
# What a reader finds for each key of a train line: the chart's title and the curve's label.
CURVES = {
    **{f"loss/{task}/{part}": (title, task.capitalize()) for part, title in LOSSES.items() for task in TASKS},
    **{f"accuracy/{task}": ("Accuracy of the discriminators", task.capitalize()) for task in TASKS},
    **{f"weighted/{task}/{part}": (TERMS, f"{task.capitalize()}, {part}") for task in TASKS for part in ("rec", "adv")},
    **{f"gradient/{name}": ("Norm of the gradient", name.capitalize()) for name in ("generator", "discriminators")},
    **{key: (title, title) for key, title in SINGLE.items()},
}
VARIANTS = {"": "Overall", "_hole": "In the hole", "_per_image": "Per picture", "_argmax": "By arg-max"}
METRICS = {"psnr": "PSNR", "ssim": "SSIM", "dice": "Dice", "landmark_error": "Landmark error"}


def test_every_number_of_the_train_lines_is_a_curve(run):
    rows = lines(run, "train")
    charts = train_charts(read_run(run))
    curves = {(chart.title, series.label): series for chart in charts for series in chart.series}
    assert {name: curve.values for name, curve in curves.items()} == {
        CURVES[key]: tuple(row[key] for row in rows) for key in rows[-1].keys() - {"kind", "step", "epoch", "samples"}
    }
    assert {curve.steps for curve in curves.values()} == {(2, 4, 6, 8, 10, 12)}
    # The resume from step 8 is marked.
    assert {chart.marks for chart in charts} == {(8,)}


def test_a_task_keeps_its_colour_in_every_chart(run):
    colours = {"Inpainting": 0, "Segmentation": 1, "Landmarks": 2}
    of_metrics = {"PSNR": 0, "SSIM": 0, "Dice": 1, "Landmark error": 2}
    for chart in train_charts(read_run(run)):
        for series in chart.series:
            # A curve of no task has no task's colour.
            expected = colours.get(series.label.split(",")[0])
            assert series.colour == expected if expected is not None else series.colour > 2, (chart.title, series)
    found = {chart.title: {series.colour for series in chart.series} for chart in eval_charts(read_run(run))}
    assert {title: found[title] for title in of_metrics} == {title: {colour} for title, colour in of_metrics.items()}


def test_every_metric_of_the_evaluations_is_a_curve(run):
    rows = read_run(run).log.evals
    charts = {chart.title: chart.series for chart in eval_charts(read_run(run))}
    found = {(title, series.label): series.values for title in METRICS.values() for series in charts[title]}
    wanted = {}
    for metric, title in METRICS.items():
        for key in rows[0].keys() & {metric + variant for variant in VARIANTS}:
            values = [row[key] for row in rows]
            means = [value["mean"] if isinstance(value, dict) else value for value in values]
            wanted[title, VARIANTS[key.removeprefix(metric)]] = tuple(means)
    assert found == wanted and len(wanted) == 10
    assert charts["PSNR"][0].steps == tuple(row["step"] for row in rows)
    single = {series.label: series.values[-1] for series in charts["Landmark error: each one"]}
    points = rows[-1]["landmark_error"].items()
    assert single == {name.replace("_", " ").capitalize(): error for name, error in points if name != "mean"}


def test_the_page_has_the_charts_with_their_references(page, run):
    shown = {chart.title: chart for chart in page.charts()}
    charts = train_charts(read_run(run)) + eval_charts(read_run(run))
    drawn = [chart for chart in charts if not chart.constant]
    assert set(shown) == {chart.title for chart in drawn}
    for chart in drawn:
        rows = shown[chart.title].spec["data"]["values"]
        found = [[(row["x"], row["y"]) for row in rows if row["s"] == index] for index in range(len(chart.series))]
        points = [list(zip(series.steps, series.values, strict=True)) for series in chart.series]
        assert found == [[pytest.approx(point, rel=1e-4) for point in series] for series in points]
        assert shown[chart.title].description == chart.description
    for title, reference in (
        ("Discriminator loss", "undecided: ln 2"), ("Accuracy of the discriminators", "guessing"),
        ("PSNR", "Biharmonic, in the hole (test split)"),
    ):  # fmt: skip
        assert f">{reference}</text>" in shown[title].svg
    assert "Learning rate 0.0002" in page.text


def test_baselines_are_drawn_beside_curves_of_the_same_hole(altered):
    """The curves are of the split valid, the evaluation with the baselines is another one's."""
    for subject, lines_drawn in (
        ({"split": "valid"}, ["Mean colour, in the hole", "Biharmonic, in the hole"]),
        ({"split": "test"}, ["Mean colour, in the hole (test split)", "Biharmonic, in the hole (test split)"]),
        ({"split": "valid", "hole": "O1"}, []),
        ({"split": "valid", "blend": "poisson"}, []),
    ):
        charts = {chart.title: chart for chart in eval_charts(read_run(altered("-".join(subject.values()), **subject)))}
        assert [name for name, _ in charts["PSNR"].references] == lines_drawn


def test_a_new_task_needs_no_code(comparison_page):
    assert "Depth map 0.125 at step 14" in comparison_page.chart("Reconstruction loss", -1).description
    assert "Depth map 0.5 at step 14" in comparison_page.chart("Loss, edge").description


def test_runs_are_compared_by_the_keys_that_they_share(comparison_page, run):
    total = f"demo {lines(run, 'train')[-1]['loss/total']:.4g} at step 12; {ODD_NAME} 1.5 at step 14"
    assert total in comparison_page.chart("Total loss").description
    shared = {chart.title for chart in comparison_page.charts() if f"{ODD_NAME} " in chart.description}
    assert {"PSNR, in the hole", "Reconstruction loss: inpainting"} <= shared
    assert "Dice, average, demo 0" in comparison_page.text  # it never changed
    assert not any("Only here" in title for title in shared)
