"""What people see in the pictures: names beside their points, none over another."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.figure import Figure

from pythia_gguf.evals.plots import MeasuredScore, _against_bits, _by_size, is_drawn_from, plot_reports


def test_names_of_neighbours_cover_neither_each_other_nor_a_point():
    """Bits and divergences as the sample has them, where two quants have one size and others nearly one."""
    sizes = {"IQ4_XS": (4.69, 3.8), "Q4_0": (4.9, 4.8), "IQ4_NL": (4.9, 3.7), "Q4_K_S": (5.01, 2.8)}
    sizes |= {"Q5_0": (5.74, 1.2), "Q5_K_S": (5.74, 1.0), "Q5_K_M": (5.88, 0.95), "Q8_0": (8.57, 0.04)}
    files = [
        {"quant": quant, "file": quant, "activations": kind, "bits_per_weight": bits, "kl_mean": kl, "kl_error": 0.01}
        for kind in ("int8", "float32")
        for quant, (bits, kl) in sizes.items()
    ]
    figure = Figure()
    axes = figure.subplots()
    report = {"reference": {"file": "F16"}, "gelu": "tanh", "text": {"scored_tokens": 9}, "files": files}
    _against_bits(axes, {"report.json": report}, "kl_mean")
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "mean KL divergence, nats"
    figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert boxes.keys() == sizes.keys()
    assert [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])] == []
    points = axes.transData.transform(list(sizes.values()))
    assert [name for name, box in boxes.items() if any(box.contains(*point) for point in points)] == []
    assert all(box.x1 <= axes.bbox.x1 for box in boxes.values())


def report(base: str, kl: float) -> dict:
    figures = {"kl_error": 0, "ppl": None, "ln_ratio_error": None}
    files = [
        {"quant": quant, "file": quant, "activations": kind, "bits_per_weight": bits, "kl_mean": kl * bits} | figures
        for kind in ("int8", "float32")
        for quant, bits in (("Q4_0", 4.9), ("Q8_0", 8.6))
    ]
    return {"reference": {"file": base}, "gelu": "erf", "text": {"scored_tokens": 1020}, "files": files}


def test_two_reports_are_one_picture_with_the_points_of_both():
    figure = Figure()
    axes = figure.subplots()
    _against_bits(axes, {"a/r.json": report("A", 0.1), "b/r.json": report("B", 0.2)}, "kl_mean")
    points = {tuple(xy) for container in axes.containers for xy in container[0].get_xydata().tolist()}
    assert points == {(bits, kl * bits) for bits in (4.9, 8.6) for kl in (0.1, 0.2)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"{kind} activations, {name}" for name in ("a/r.json", "b/r.json") for kind in ("int8", "float32")
    ]
    assert axes.get_title() == "Against each its own unquantized file, on 1,020 tokens; erf GELU"
    colors = {container[0].get_color() for container in axes.containers}
    assert len(colors) == 4
    assert sorted(text.get_text() for text in axes.texts) == ["Q4_0", "Q4_0", "Q8_0", "Q8_0"]


def test_results_of_two_runs_are_told_apart():
    figure = Figure()
    axes = figure.subplots()
    runs = [("a.json", 0.6), ("b.json, 100 of 1,838 items", 0.7)]
    _by_size(axes, "piqa", [MeasuredScore(label=n, task="piqa", parameters=4e8, accuracy=a) for n, a in runs])
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_label() in dict(runs)}
    assert drawn == {name: [[4e8, accuracy]] for name, accuracy in runs}
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= set(dict(runs))


def test_a_picture_knows_which_report_it_is_of(tmp_path: Path):
    reports = {"a": report("A", 0.1), "b": report("B", 0.2)}
    ours, other = "a" * 64, "b" * 64
    for hashes, expected in (([ours], True), ([other], False), ([ours, other], False), ([other, ours], False)):
        shown = dict(list(reports.items())[: len(hashes)])
        for picture in plot_reports(shown, hashes, tmp_path):
            assert is_drawn_from(picture, ours) == expected
