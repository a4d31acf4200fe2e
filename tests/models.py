"""What several tests do to models: random weights, and the log-determinant by autodiff."""

import torch
from torch import nn

from flowlib import BatchNorm


def randomize(module: nn.Module, scale: float = 0.3, seed: int | None = None) -> nn.Module:
    """Replace all weights by draws, so that nothing is tested at the identity; in evaluation."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, scale, generator=generator)
        for child in module.modules():
            if isinstance(child, BatchNorm):
                child.running_mean.normal_(generator=generator)
                child.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def autodiff_log_det(f, x):
    """log|det| of the Jacobian of ``f`` at each row of ``x``, by autodiff."""
    rows = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(
            lambda v: f(v[None])[0][0], row, vectorize=True
        )
        rows.append(torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel()))[1])
    return torch.stack(rows)


def shaken(make, scale: float = 0.4, seed: int = 0) -> nn.Module:
    """What ``make()`` returns, its weights moved by draws, as if it were trained; in float64. The
    caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make()
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.double().eval()
