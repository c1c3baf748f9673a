from collagan_dist.report import formatting as f


def test_metric_labels():
    labels = {
        "psnr_hole": "PSNR, in the hole", "dice/mean": "Dice, average", "depth_error": "Depth error",
        "landmark_error_argmax/left_eye": "Landmark error, by arg-max, left eye",
    }  # fmt: skip
    assert {key: f.metric_label(key) for key in labels} == labels
    assert f.metric_title("landmark_error_argmax/left_eye") == "Landmark error by arg-max left eye"


def test_metrics_have_their_digits_and_units():
    assert f.format_metric("psnr", 27.125, True) == "27.12 dB" and f.format_metric("dice", None) == "–"
    assert f.format_metric("depth_error", 0.123456) == "0.1235" and f.format_metric("psnr", -1.5) == "−1.50"
    # No error is shown as zero.
    assert f.format_error("psnr", 0.061) == "± 0.06" and f.format_error("psnr", 0.001) == "< 0.01"
    assert f.format_number(1234567) == "1,234,567" and f.format_number(0.00012345) == "0.0001234"
    assert [f.format_p(value) for value in (0.2, 0.0314, 0.0002)] == ["0.2", "0.031", "< 0.001"]
    assert f.better_sign("landmark_error") == -1 and f.better_sign("psnr") == 1
    assert f.format_setting([True, None, 3]) == "yes, none, 3" and f.format_setting([]) == "none"
