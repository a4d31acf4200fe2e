"""What is wrong with a flow, ours or anybody's: :func:`check_flow`.

A normalizing flow with an error in its log-determinant trains without complaint, and its loss may
even look better than that of a right one. This module tries what can be tried from outside. Each
line of the report is one question with one answer; what is found names the symptom, the likely
cause, a cure, and rows of the page *Common mistakes*.

The flow itself is never changed: all is tried on copies, in evaluation unless a line says
otherwise, in float64 where the flow can be turned into it, with random numbers of its own.

What is said is in ``findings``, what is tried on in ``patient`` and ``versions``, what is true of a
map in ``jacobians``; the lines are in ``calls``, ``maps``, ``densities`` and ``weights``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.adapters import view
from flowlib.arguments import require_context, require_finite, require_tensor
from flowlib.arrays import as_tensors
from flowlib.diagnosis.calls import finite, modes, repeatable, rows, shapes, untouched
from flowlib.diagnosis.densities import (
    bits,
    columns_of_data,
    context_used,
    draws,
    integral,
    latents,
    links,
)
from flowlib.diagnosis.findings import SKIPPED, WRONG, Finding, NotTried, Outcome, Report
from flowlib.diagnosis.maps import estimate, log_determinant, one_sign, round_trip
from flowlib.diagnosis.patient import Patient
from flowlib.diagnosis.weights import gradients, hidden_units, last_layer, state
from flowlib.flow import Density

__all__ = ["Finding", "Report", "check_flow"]


def check_flow(
    flow: Any,
    x: Any,
    context: Any = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
    bits_per_dim: Callable[[Tensor], Tensor] | None = None,
    levels: int = 256,
    seed: int = 0,
) -> Report:
    """Try a flow, trained or fresh, and report what is wrong with it.

    Args:
        flow: a :class:`~flowlib.Flow` or other density of this library, a flow of zuko, nflows or
            normflows, a ``torch.distributions.TransformedDistribution``, a module or function that
            maps ``x`` to ``(z, log_det)``, or a :class:`~flowlib.adapters.Foreign` made of
            functions. It is left as it is.
        x: rows of data ``(n, *event)``, some hundred are enough: a tensor in the flow's dtype, an
            array, or a table such as pandas' DataFrame, whose columns the report names.
        context: their contexts ``(n, C)``, if the flow takes some, in one of these forms.
        rebuild: makes the same flow anew, with other random weights. With it the report knows
            whether ``state_dict`` carries all that the flow is made of. The ready flows of this
            library need none.
        bits_per_dim: what your code reports as bits per dimension: rows to one number each.
        levels: of the whole numbers behind ``x`` when ``bits_per_dim`` is given.
        seed: of the random numbers that the tries take. The caller's random state stays as it is.

    Returns:
        A :class:`Report`. A few seconds for flows of 16 dimensions or less; some 20 in 784
        dimensions, of which fewer rows are tried, and a minute for a Residual Flow of pictures.
        What would not fit into memory is not tried.

    Raises:
        TypeError: if ``flow`` or ``x`` is of no kind that is known.
        ValueError: if ``x`` has fewer than two rows or values that are not finite; if a context is
            missing, or has another shape; if a table has other columns than those that the flow
            was fitted on.

    Example:
        >>> from flowlib import RealNVP
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> report = check_flow(RealNVP(2), x)
        >>> report.ok, report["log-determinant"].verdict
        (True, 'ok')
    """
    x, context, names = as_tensors("check_flow", flow, x, context)
    require_tensor("check_flow", "x", x)
    if x.dim() < 2 or len(x) < 2:
        raise ValueError(f"check_flow: expected rows (n, ...), two or more, got {tuple(x.shape)}")
    require_finite("check_flow", "x", x)
    if isinstance(flow, Density):
        require_context("check_flow", context, flow.context_dim)
    if context is not None:
        require_tensor("check_flow", "context", context)
        if context.dim() != 2 or len(context) != len(x):
            raise ValueError(
                f"check_flow: expected a context of shape ({len(x)}, C), got {tuple(context.shape)}"
            )
    name = view(flow).name
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(seed)
        patient = Patient(flow, x.detach(), context, rebuild, bits_per_dim, levels, names)
        return Report(name, [_tried(line, ask, patient) for line, ask in LINES.items()])


def _tried(line: str, ask: Callable[[Patient], Outcome], patient: Patient) -> Finding:
    try:
        return Finding(line, *ask(patient))
    except NotTried as why:
        return Finding(line, SKIPPED, str(why))
    except Exception as error:  # the flow's own: it is what the report is about
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if isinstance(error, _NO_FAULT) or _FULL.search(said):
            return Finding(line, SKIPPED, f"it raised {said}")
        return Finding(
            line,
            WRONG,
            f"it raised {said}",
            "an error in the flow's own code, or data that it does not take",
            "call it on these rows by itself, and read the trace",
        )


_NO_FAULT = (NotImplementedError, MemoryError, torch.cuda.OutOfMemoryError)
_FULL = re.compile("not enough memory|can't allocate memory|out of memory", re.IGNORECASE)

LINES: dict[str, Callable[[Patient], Outcome]] = {
    "input": untouched,
    "shapes": shapes,
    "finite": finite,
    "repeatable": repeatable,
    "rows": rows,
    "modes": modes,
    "log-determinant": log_determinant,
    "estimate": estimate,
    "round trip": round_trip,
    "one sign": one_sign,
    "draws": draws,
    "integral": integral,
    "links": links,
    "gradients": gradients,
    "hidden units": hidden_units,
    "last layer": last_layer,
    "state": state,
    "context": context_used,
    "columns": columns_of_data,
    "latents": latents,
    "bits": bits,
}
