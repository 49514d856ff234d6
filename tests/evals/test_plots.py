"""What people see in the pictures: names beside their points, none over another."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure

from pythia_gguf.evals.plots import _against_bits


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
    _against_bits(axes, {"reference": {"file": "F16"}, "gelu": "tanh", "files": files}, "kl_mean")
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "mean KL divergence, nats"
    figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert boxes.keys() == sizes.keys()
    assert [pair for pair in itertools.combinations(boxes, 2) if boxes[pair[0]].overlaps(boxes[pair[1]])] == []
    points = axes.transData.transform(list(sizes.values()))
    assert [name for name, box in boxes.items() if any(box.contains(*point) for point in points)] == []
    assert all(box.x1 <= axes.bbox.x1 for box in boxes.values())
