"""The same flows in four libraries: as many layers, networks of the same widths.

Each entry makes a model with `log_prob(x)`, `sample(n)` and `parameters()`. Ours are
`flowlib.RealNVP` and `flowlib.MAF` with their defaults: an ActNorm in front, log-scales bounded on
both sides, networks that saturate. zuko's are its ready flows; those of nflows and normflows are
put together from their layers, alternating halves or reversed orders, networks of ReLUs, nothing
in between. The spline flow is zuko's, which is autoregressive.
"""

from __future__ import annotations

import copy
import functools
import itertools

import torch
from torch import nn


def flowlib(dim: int, layers: int, hidden: tuple[int, ...]) -> nn.Module:
    from flowlib import RealNVP

    return RealNVP(dim, n_layers=layers, hidden=hidden)


class Zuko(nn.Module):
    def __init__(self, dim, layers, hidden):
        super().__init__()
        import zuko

        self.flow = zuko.flows.RealNVP(dim, transforms=layers, hidden_features=hidden)

    def log_prob(self, x):
        return self.flow().log_prob(x)

    def sample(self, n):
        return self.flow().sample((n,))


class Normflows(nn.Module):
    def __init__(self, dim, layers, hidden):
        super().__init__()
        import normflows as nf

        half = dim // 2  # the channels are split in half and swapped
        flows = []
        for _ in range(layers):
            net = nf.nets.MLP([dim - half, *hidden, 2 * half], init_zeros=True)
            flows += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(dim, mode="swap")]
        base = nf.distributions.DiagGaussian(dim, trainable=False)
        self.flow = nf.NormalizingFlow(base, flows)

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def sample(self, n):
        return self.flow.sample(n)[0]


class Network(nn.Module):
    """A plain network with nflows' second argument."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        widths = [inputs, *hidden, outputs]
        layers = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x, context=None):
        return self.layers(x)


class Nflows(nn.Module):
    def __init__(self, dim, layers, hidden):
        super().__init__()
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.coupling import AffineCouplingTransform

        steps = [
            AffineCouplingTransform(
                torch.arange(dim) % 2 == i % 2, lambda a, b: Network(a, hidden, b)
            )
            for i in range(layers)
        ]
        self.flow = Flow(CompositeTransform(steps), StandardNormal([dim]))

    def log_prob(self, x):
        return self.flow.log_prob(x)

    def sample(self, n):
        return self.flow.sample(n)


# --- MAF ------------------------------------------------------------------------------------


def maf(dim: int, layers: int, hidden: tuple[int, ...], inverter: str = "default") -> nn.Module:
    return _autoregressive("MAF", dim, layers, hidden, inverter)


def iaf(dim: int, layers: int, hidden: tuple[int, ...], inverter: str = "default") -> nn.Module:
    return _autoregressive("IAF", dim, layers, hidden, inverter)


def _autoregressive(name, dim, layers, hidden, inverter):
    import flowlib

    way = None if inverter == "default" else getattr(flowlib, inverter)()
    return getattr(flowlib, name)(dim, n_layers=layers, hidden=hidden, inverter=way)


def unmasked(dim: int, layers: int, hidden: tuple[int, ...]) -> nn.Module:
    """Our MAF with plain layers in the place of the masked ones: what masks cost."""
    from flowlib import MADE

    class Plain(nn.Linear):
        def forward(self, x, which=0):
            return nn.functional.linear(x, self.weight, self.bias)

    def plain(layer):
        outputs, inputs = layer.weight.shape
        return Plain(inputs, outputs, layer.bias is not None)

    flow = maf(dim, layers, hidden)
    for made in flow.modules():
        if isinstance(made, MADE):
            for k, layer in enumerate(made.layers):
                made.layers[k] = plain(layer)
            if made.direct is not None:
                made.direct = plain(made.direct)
    return flow


def coupled_splines(dim: int, layers: int, hidden: tuple[int, ...]) -> nn.Module:
    from flowlib import RealNVP, Spline

    return RealNVP(dim, n_layers=layers + 1, hidden=hidden, transformer=Spline)


def splines(dim: int, layers: int, hidden: tuple[int, ...]) -> nn.Module:
    """Of splines three layers take the time that five affine ones do."""
    from flowlib import MAF, Spline

    return MAF(dim, n_layers=3, hidden=hidden, transformer=Spline)


def changed(dim, layers, hidden, *, between=False, order="random", **changes) -> nn.Module:
    """Our MAF with one of its parts left out or another in its place."""
    from flowlib import MADE, MAF, ActNorm, Autoregressive, Compose, Hardtanh
    from flowlib.autoregressive import _gain, _is_direct

    flow = MAF(dim, n_layers=layers, hidden=hidden, order=order)
    own = {"activation": Hardtanh, "gain": _gain(dim)}
    steps = []
    for k, step in enumerate(flow.bijection, -1):
        if isinstance(step, Autoregressive):
            options = {**own, "direct": _is_direct(dim, k), **changes}
            made = MADE(dim, hidden, outputs_per_dim=2, order=step.ranks, **options)
            step = Autoregressive(made, step.transformer)
        steps += [step, ActNorm(dim)] if between and len(steps) else [step]
    flow.bijection = Compose(steps)
    return flow


PARTS = {
    "as it is": changed,
    "no direct links": functools.partial(changed, direct=False),
    "direct links everywhere": functools.partial(changed, direct=True),
    "natural orders": functools.partial(changed, order="natural"),
    "ReLUs": functools.partial(changed, activation=nn.ReLU),
    "the usual start": functools.partial(changed, gain=1.0),
    "ActNorm after each layer": functools.partial(changed, between=True),
}


class ZukoMAF(Zuko):
    ready = "MAF"

    def __init__(self, dim, layers, hidden):
        nn.Module.__init__(self)
        import zuko

        make = getattr(zuko.flows, self.ready)
        self.flow = make(dim, transforms=layers, hidden_features=hidden)


class ZukoNSF(ZukoMAF):
    ready = "NSF"


class NflowsMAF(Nflows):
    def __init__(self, dim, layers, hidden):
        nn.Module.__init__(self)
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.permutations import ReversePermutation

        steps = []
        for _ in range(layers):
            steps.append(
                MaskedAffineAutoregressiveTransform(
                    dim, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
                )
            )
            steps.append(ReversePermutation(dim))
        self.flow = Flow(CompositeTransform(steps), StandardNormal([dim]))


class NormflowsMAF(Normflows):
    def __init__(self, dim, layers, hidden):
        nn.Module.__init__(self)
        import normflows as nf

        flows = []
        for _ in range(layers):
            layer = nf.flows.MaskedAffineAutoregressive(
                dim, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
            )
            flows.append(nf.flows.Reverse(layer))  # by itself it draws in one pass
            flows.append(nf.flows.Permute(dim, mode="swap"))
        base = nf.distributions.DiagGaussian(dim, trainable=False)
        self.flow = nf.NormalizingFlow(base, flows)


class NflowsIAF(NflowsMAF):
    def __init__(self, dim, layers, hidden):
        super().__init__(dim, layers, hidden)
        from nflows.flows.base import Flow
        from nflows.transforms.base import InverseTransform

        self.flow = Flow(InverseTransform(self.flow._transform), self.flow._distribution)

    def rsample_and_log_prob(self, n):
        return self.flow.sample_and_log_prob(n)


class NormflowsIAF(NormflowsMAF):
    def __init__(self, dim, layers, hidden):
        super().__init__(dim, layers, hidden)
        import normflows as nf

        flows = [f.flow if isinstance(f, nf.flows.Reverse) else f for f in self.flow.flows]
        self.flow = nf.NormalizingFlow(self.flow.q0, flows)

    def rsample_and_log_prob(self, n):
        return self.flow.sample(n)


# --- residual networks ------------------------------------------------------------------------


class Residuals(nn.Module):
    """Our residual network of 8 blocks with 128 units; in more than three dimensions it learns by a
    series of eight terms, and in evaluation its log-determinants are exact."""

    def __init__(self, dim, activation=None):
        super().__init__()
        import flowlib

        self.exact = flowlib.ExactLogDet()
        series = flowlib.ExactLogDet if dim <= 3 else functools.partial(flowlib.PowerSeries, 8)
        kind = activation and getattr(flowlib, activation)
        self.flow = flowlib.IResNet(dim, 8, 128, activation=kind, log_det=series)
        self.initialize = self.flow.initialize
        self.blocks = [b for b in self.flow.bijection if hasattr(b, "log_det")]
        # registered, so that train() and eval() reach them while the others are in their place
        self.series = nn.ModuleList(b.log_det for b in self.blocks)

    def log_prob(self, x):
        for block, series in zip(self.blocks, self.series, strict=True):
            block.log_det = series if self.training else self.exact
        return self.flow.log_prob(x)


def iresnet(activation=None):
    return lambda dim, layers, hidden: Residuals(dim, activation)


def normflows_residual(event, layers, hidden, how=None):
    """normflows' blocks. How they compute log-determinants: None for the exact one of two
    coordinates, a number of terms of the series, ``"roulette"``, or ``"saving"`` for roulette in
    the mode that saves memory."""
    import normflows as nf

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            flows = []
            for _ in range(layers):
                if isinstance(event, int):
                    shape = event
                    net = nf.nets.LipschitzMLP([event, *as_tuple(hidden), event])
                else:
                    shape, channels = event, event[0]
                    net = nf.nets.LipschitzCNN([channels, *as_tuple(hidden), channels], [3, 3])
                options = {"brute_force": True} if how is None else {}
                options |= {"n_power_series": how} if isinstance(how, int) else {}
                flows.append(nf.flows.Residual(net, reduce_memory=how == "saving", **options))
                size = (shape,) if isinstance(shape, int) else (shape[0], 1, 1)
                flows.append(nf.flows.ActNorm(size))
            base = nf.distributions.DiagGaussian(event, trainable=False)
            self.flow = nf.NormalizingFlow(base, flows)

        def log_prob(self, x):
            return self.flow.log_prob(x)

        def after_step(self):
            nf.utils.update_lipschitz(self, 5)

    return Theirs()


def as_tuple(hidden):
    return (hidden,) if isinstance(hidden, int) else tuple(hidden)


def residual_flow(dim, layers, hidden):
    import flowlib

    return flowlib.ResidualFlow(dim)


def roulette(dim, layers, hidden):
    """Trained by roulette in every dimension, and scored exactly."""
    import flowlib

    return flowlib.ResidualFlow(
        dim, log_det=lambda: flowlib.ByMode(flowlib.RussianRoulette(), flowlib.ExactLogDet())
    )


def by_itself(flow):
    """The same flow, whose evaluation is the roulette's own."""
    import flowlib

    twin = copy.deepcopy(flow)
    for part in twin.modules():
        if isinstance(part, flowlib.ByMode):
            part.in_evaluation = part.in_training
    return twin.eval()


REALNVP = {"flowlib": flowlib, "zuko": Zuko, "nflows": Nflows, "normflows": Normflows}
MAF = {
    "flowlib": maf, "zuko": ZukoMAF, "nflows": NflowsMAF, "normflows": NormflowsMAF,
    "flowlib splines": splines, "zuko splines": ZukoNSF,
}  # fmt: skip
IAF = {"nflows": NflowsIAF, "normflows": NormflowsIAF}  # zuko's learns by its draws in D passes
# what the chapters have, one beside the other
OURS = {
    "RealNVP": lambda dim, layers, hidden: flowlib(dim, layers + 1, hidden),
    "MAF": maf, "MAF with splines": splines, "RealNVP with splines": coupled_splines,
    "IResNet": iresnet(),
    "ResidualFlow": residual_flow,
}  # fmt: skip


def nice(dim, layers, hidden):
    import flowlib

    return flowlib.NICE(dim, layers + 1, hidden)


# all of the book
WHOLE = {"NICE": nice, **OURS, "IAF": iaf}
# at D = 2 normflows' determinants are exact, else of eight terms in training, of 20 and some after
IRESNET = {
    "flowlib": iresnet(), "sine": iresnet("Sine"), "tanh": iresnet("Tanh"),
    "ELU": iresnet("ELU"),
    "normflows": lambda dim, layers, hidden: normflows_residual(
        dim, 8, 128, None if dim == 2 else 8
    ),
}  # fmt: skip


# at D = 2 determinants are exact, but in "roulette"; normflows' blocks are those of IRESNET
RESIDUAL = {
    "flowlib": residual_flow, "roulette": roulette,
    "normflows": lambda dim, layers, hidden: normflows_residual(
        dim, 8, 128, None if dim == 2 else "roulette"
    ),
}  # fmt: skip
FAMILIES = {
    "realnvp": REALNVP, "maf": MAF, "parts": PARTS, "ours": OURS, "iresnet": IRESNET,
    "residual": RESIDUAL, "whole": WHOLE,
}  # fmt: skip
