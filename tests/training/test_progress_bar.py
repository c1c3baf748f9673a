from collagan_dist.training.progress_bar import ProgressBar


def test_a_line_of_text_without_a_terminal(capsys):
    bar = ProgressBar(start=10, stop_at=30, batch=4)
    bar.advance()
    bar._began -= 5  # seconds ago
    bar.show(20, {"images_per_s": 123.4, "data_wait_share": 0.25, "loss/total": 1.5})
    bar.close()
    line = " ".join(capsys.readouterr().err.split())
    assert line == "step 20/30 123 images/s data wait 25% loss 1.500 ETA 5 s"


def test_the_rate_is_told_after_two_steps(capsys):
    """Without the first one, which prepares much; once, where there is no terminal."""
    bar = ProgressBar(start=0, stop_at=30, batch=4)
    bar.advance()
    bar._first_done -= 2  # seconds ago
    for _ in range(3):
        bar.advance()
    bar.close()
    assert " ".join(capsys.readouterr().err.split()) == "first steps: 2 images/s"
