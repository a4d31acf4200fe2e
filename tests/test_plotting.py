"""flowlib.plotting: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from flowlib import Flow, LULinear, StandardNormal, datasets, plotting


def test_points_and_their_shape():
    _, ax = plt.subplots()
    plotting.plot_points(ax, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert ax.collections[0].get_offsets().tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"expected points \(n, 2\), got \(4, 3\)"):
        plotting.plot_points(ax, torch.zeros(4, 3))


def test_a_density_is_drawn_where_it_is():
    _, ax = plt.subplots()
    plotting.plot_density(ax, datasets.moons.log_prob, extent=(-4, 4, -3, 3), resolution=80)
    image = ax.images[0].get_array()
    assert image.shape == (80, 80)
    assert abs(image.sum() * 0.1 * 0.075 - 1) < 0.01
    row, column = np.unravel_index(image.argmax(), image.shape)
    centre = torch.tensor([[-4 + 0.1 * (column + 0.5), -3 + 0.075 * (row + 0.5)]])
    assert abs(datasets.moons.log_prob(centre).exp().item() - image.max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_density_of_a_flow_in_any_dtype(dtype):
    _, ax = plt.subplots()
    flow = Flow(LULinear(2), StandardNormal(2)).to(dtype)
    plotting.plot_density(ax, flow.log_prob, resolution=40)
    assert ax.images[0].get_array().sum() * 0.2**2 == pytest.approx(1, abs=0.02)


def test_a_map_is_drawn_as_a_grid_and_its_image():
    _, axes = plt.subplots(1, 2)
    plotting.plot_map(axes, lambda x: 2 * x + 1, extent=(-1, 1, -1, 1), lines=3)
    left, right = (ax.collections[0].get_segments() for ax in axes)
    assert len(left) == len(right) == 6
    np.testing.assert_allclose(right[4], 2 * left[4] + 1, rtol=1e-6)


def test_lightness_of_the_density_map_falls_evenly():
    rgb = plotting.DENSITY(np.linspace(0, 1, 64))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = -np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() / steps.min() < 1.8
