"""`torch.export` takes the flows: densities for any number of rows, draws in a number of steps."""

import pytest
import torch
from torch import nn

from flowlib import MAF, BernoulliMADE, Sequential
from tests.models import randomize
from tests.test_flows import FLOWS, points

# of each kind one; the draws of an invertible residual network have no fixed number of steps
DENSITIES = (
    "Flow on pictures", "RealNVP(5), context", "RealNVP(5), splines", "MAF(5), context",
    "IAF(4), context", "IResNet(5)", "ResidualFlow(5)", "ImageRealNVP(2,4,4), context",
)  # fmt: skip
DRAWS = ("Flow on pictures", "RealNVP(5), context", "ImageRealNVP(1,4,4)", "IAF(4), context")


class Draws(nn.Module):
    """Latent points to data: what is exported when a flow's draws are wanted elsewhere."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, z, context=None):
        return self.flow.bijection.inverse(z, self.flow.in_own_units(context))[0]


def require_the_same(model, *given):
    """Exported with five rows, it is the same for nine others."""
    given = [part.float() for part in given if part is not None]
    batch = torch.export.Dim("batch")
    five = tuple(part[:5] for part in given)
    exported = torch.export.export(model, five, dynamic_shapes=tuple({0: batch} for _ in five))
    rest = [part[5:] for part in given]
    torch.testing.assert_close(exported.module()(*rest), model(*rest), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_for_any_number_of_rows(name):
    flow = randomize(FLOWS[name]()).eval()
    require_the_same(flow, *points(flow, 14))


def test_the_probability_of_bits():
    flow = randomize(BernoulliMADE(6, (8,))).eval()
    require_the_same(flow, torch.randint(2, (14, 6)))


@pytest.mark.parametrize("name", DRAWS)
def test_draws(name):
    flow = randomize(FLOWS[name]()).eval()
    x, context = points(flow, 14)
    own = None if context is None else flow.in_own_units(context.float())
    z = flow.bijection(x.float(), own)[0].detach()
    require_the_same(Draws(flow), z, context)


def test_draws_of_an_autoregressive_flow_by_a_pass_for_each_coordinate():
    flow = randomize(MAF(4, 2, (8,), inverter=Sequential())).eval()
    require_the_same(Draws(flow), torch.randn(14, 4))
