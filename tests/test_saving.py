"""One file for a flow: what comes out of it is what went in, and nothing in it is run."""

import copy
import functools
import json
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    Normal,
)
from torch.distributions import MultivariateNormal as TorchNormal

import flowlib
from flowlib import (
    MAF,
    Affine,
    BernoulliMADE,
    Bijection,
    Branch,
    Compose,
    Coupling,
    ElementwiseAffine,
    Flow,
    Inverse,
    IResNet,
    Jacobi,
    LULinear,
    PowerSeries,
    RealNVP,
    Recorded,
    ResidualBlock,
    ResidualFlow,
    RussianRoulette,
    Spline,
    StandardNormal,
    half_mask,
    load,
    pretrained,
    saving,
)
from tests.models import randomize
from tests.test_flows import FLOWS


class Shifted(Bijection):
    """A bijection of one's own, which takes part without a word."""

    context_dim = 0

    def __init__(self, dim: int, by: float, names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.event_shape, self.by, self.names = torch.Size([dim]), by, names
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x, context=None):
        return x * self.scale + self.by, self.scale.abs().log().sum().expand(len(x))

    def inverse(self, z, context=None):
        return (z - self.by) / self.scale, -self.scale.abs().log().sum().expand(len(z))


def _shared():
    """One map twice, so that its weights are tied."""
    once = LULinear(3)
    return Flow(Compose([once, ElementwiseAffine(3), Inverse(once)]), StandardNormal(3))


def _of_pytorchs_layers():
    network = nn.Sequential(nn.Linear(2, 8, bias=False), nn.ELU(0.5), nn.Linear(8, 4))
    return Flow(Coupling(half_mask(4), network, Affine(2)), StandardNormal(4))


def _on(base):
    return Flow(LULinear(2), base)


def _on_asked(given, asked):
    """What a distribution has computed when it was asked is one of its tensors, too."""
    if given == "cov_factor":
        base = LowRankMultivariateNormal(torch.ones(2), torch.ones(2, 1), torch.ones(2))
    else:
        base = TorchNormal(torch.ones(2), **{given: torch.diag(torch.tensor([2.0, 3.0]))})
    for name in asked:
        getattr(base, name)
    return _on(base)


MADE_OF = {
    **FLOWS,
    "bits": lambda: BernoulliMADE(6, (8,), order="random", n_masks=3),
    "tied weights": _shared,
    "layers of PyTorch": _of_pytorchs_layers,
    "a class of one's own": lambda: _on_shift(),
    "on Laplace": lambda: _on(Independent(Laplace(torch.zeros(2), torch.ones(2)), 1)),
    "on PyTorch's normal": lambda: _on(TorchNormal(torch.ones(2), 2 * torch.eye(2))),
    **{
        f"on a normal, given {given}, asked for {', '.join(asked)}": functools.partial(
            _on_asked, given, asked
        )
        for given, asked in [
            ("covariance_matrix", ["precision_matrix"]),
            ("precision_matrix", ["scale_tril", "covariance_matrix"]),
            ("scale_tril", ["precision_matrix"]),
            ("cov_factor", ["precision_matrix", "scale_tril"]),
        ]
    },
    "on a mixture": lambda: _on(
        MixtureSameFamily(
            Categorical(torch.tensor([0.2, 0.8])),
            Independent(Normal(torch.zeros(2, 2), torch.ones(2, 2)), 1),
        )
    ),
    "a partial": lambda: RealNVP(4, 2, (8,), transformer=functools.partial(Spline, n_bins=5)),
    "a power series": lambda: IResNet(4, 2, 8, log_det=functools.partial(PowerSeries, 3)),
    "blocks taken out": lambda: Flow(
        Compose([*IResNet(4, 2, 8, log_det=functools.partial(PowerSeries, 3)).bijection]),
        StandardNormal(4),
    ),
    "memory saved": lambda: ResidualFlow(
        6, 2, 8, recompute=True, log_det=functools.partial(RussianRoulette, 0.4)
    ),
    "layers with names": lambda: _on_named_layers(),
    "its own inverter": lambda: MAF(4, 2, (8,), inverter=Jacobi(3)),
    "drawn by a generator": lambda: MAF(4, 2, (8,), generator=torch.Generator().manual_seed(3)),
    "arrays as sizes": lambda: RealNVP(np.int64(4), 2, np.array([8, 8])),
}


def _on_named_layers():
    parts = OrderedDict(enter=nn.Linear(2, 8), bend=nn.Tanh(), leave=nn.Linear(8, 4))
    return Flow(Coupling(half_mask(4), nn.Sequential(parts), Affine(2)), StandardNormal(4))


def _on_shift():
    return Flow(Shifted(2, 0.1, ("a", "b")), StandardNormal(2))


def rows(flow, dtype):
    x = torch.randn(5, *flow.event_shape, dtype=dtype)
    if flow.discrete:
        x = (x > 0).to(dtype)
    elif flow.bijection.domain is not None:
        x = x.sigmoid()
    return x, torch.randn(5, flow.context_dim, dtype=dtype) if flow.context_dim else None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MADE_OF)
def test_densities_are_the_same_to_the_last_bit(name, dtype, tmp_path):
    torch.manual_seed(5)
    flow = randomize(MADE_OF[name]()).to(dtype)
    flow.save(tmp_path / "flow")
    before = torch.get_rng_state()
    again = load(tmp_path / "flow")
    assert torch.equal(before, torch.get_rng_state())
    assert type(again) is type(flow)
    assert not again.training
    assert {**again.state_dict()}.keys() == {**flow.state_dict()}.keys()
    assert repr(again) == repr(flow)
    flow.eval()
    x, context = rows(flow, dtype)
    assert torch.equal(again.log_prob(x, context), flow.log_prob(x, context))
    torch.manual_seed(1)
    draws = again.sample(3, context)
    torch.manual_seed(1)
    assert torch.equal(flow.sample(3, context), draws)
    # and what came out goes in
    again.save(tmp_path / "second")
    assert torch.equal(load(tmp_path / "second").log_prob(x, context), flow.log_prob(x, context))


@pytest.mark.parametrize("name", ["RealNVP(5), context", "tied weights", "ResidualFlow(5)"])
def test_copies_and_pickles_can_be_saved_too(name, tmp_path):
    flow = randomize(MADE_OF[name]()).eval()
    x, context = rows(flow, torch.float32)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        twin.save(tmp_path / "flow")
        assert torch.equal(load(tmp_path / "flow").log_prob(x, context), flow.log_prob(x, context))


def test_flows_that_the_book_has_trained(tmp_path):
    flow = pretrained("binary-digits")
    flow.save(tmp_path / "flow")
    x = (torch.rand(5, 64) > 0.5).float()
    assert torch.equal(load(tmp_path / "flow").log_prob(x), flow.eval().log_prob(x))


def test_tied_weights_stay_tied(tmp_path):
    _shared().save(tmp_path / "flow")
    maps = load(tmp_path / "flow").bijection
    assert maps[0] is maps[2].bijection


def test_it_can_be_trained_on_and_frozen_weights_stay_frozen(tmp_path):
    flow = RealNVP(2, 2, (8,))
    flow.bijection[0].requires_grad_(False)
    flow.save(tmp_path / "flow")
    again = load(tmp_path / "flow")
    assert {n: w.requires_grad for n, w in again.named_parameters()} == {
        n: w.requires_grad for n, w in flow.named_parameters()
    }
    first = torch.randn(500, 1)
    x = torch.cat((first, first**2 + 0.1 * torch.randn(500, 1)), 1)
    history = flowlib.fit(again, x, steps=50, lr=0.01)
    assert history.valid[-1][1] < history.valid[0][1]


def test_parts_of_two_dtypes_keep_them(tmp_path):
    flow = Flow(LULinear(2), StandardNormal(2))
    flow.register_buffer("note", torch.ones(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="changed after it was made: note"):
        flow.save(tmp_path / "flow")
    flow = RealNVP(2, 2, (8,))
    flow.bijection[1].double()
    flow.save(tmp_path / "flow")
    assert {n: w.dtype for n, w in load(tmp_path / "flow").state_dict().items()} == {
        n: w.dtype for n, w in flow.state_dict().items()
    }


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "flow"
    RealNVP(2, 2, (8,)).save(path)
    whole = path.read_bytes()

    def broken(tensors, target, header):
        Path(target).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(saving, "save_file", broken)
    with pytest.raises(OSError, match="full"):
        RealNVP(2, 2, (8,)).save(path)
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["flow"]


# --- what is refused --------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    RealNVP(2, 2, (8,)).save(tmp_path / "flow")
    return tmp_path / "flow"


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_a_pickle_is_refused_and_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), "zipped")
    (tmp_path / "plain").write_bytes(pickle.dumps(Bomb()))
    torch.save(Bomb(), "older", _use_new_zipfile_serialization=False)
    for name in ("zipped", "plain", "older"):
        with pytest.raises(ValueError, match="is a pickle"):
            load(name)
    assert not (tmp_path / "exploded").exists()


def test_every_length_but_the_whole_is_refused(written):
    whole = written.read_bytes()
    for cut in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        written.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="cut off"):
            load(written)
    written.write_bytes(whole + b"more")
    with pytest.raises(ValueError, match="cut off"):
        load(written)


def test_other_files_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="load_state_dict takes tensors"):
        load(tmp_path / "foreign")
    (tmp_path / "text").write_text("a,b\n1,2\n" * 20)
    with pytest.raises(ValueError, match="is not a file that"):
        load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)


def test_any_byte_that_has_changed_is_noticed(written):
    whole = written.read_bytes()
    generator = np.random.default_rng(0)
    for at in [*generator.integers(8, len(whole), 100), len(whole) - 1]:
        changed = bytearray(whole)
        changed[at] ^= 1 << int(generator.integers(8))
        written.write_bytes(changed)
        with pytest.raises(ValueError, match="load: ") as raised:
            load(written)
        assert str(written) in str(raised.value)


def rewritten(path, change):
    """The file with another header, and tensors, as somebody might make it."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])["__metadata__"]
    tensors = load_file(path)
    recipe = json.loads(header.pop("recipe"))
    change(header, recipe, tensors)
    header = {"recipe": json.dumps(recipe), **header}
    save_file(tensors, path, {**header, "digest": saving.digest(header["recipe"], tensors)})


def set_version(header, recipe, tensors):
    header["version"] = "99"


def name_a_function(header, recipe, tensors):
    recipe["made"]["make"] = "os.system"


def name_another_class_of_python(header, recipe, tensors):
    recipe["made"]["make"] = "subprocess.Popen"


def name_no_module(header, recipe, tensors):
    recipe["made"]["make"] = "torch.nn.Module.apply"


def name_a_private_thing(header, recipe, tensors):
    recipe["made"]["kwargs"] = {"transformer": {"class": "torch.distributions.kl.os"}}


def name_what_reads_pickles(header, recipe, tensors):
    load = {"partial": {"dtype": "load"}, "args": ["evil.pt"], "kwargs": {"weights_only": False}}
    recipe["made"] = {"make": "flowlib.IResNet", "args": [2], "kwargs": {"log_det": load}}


def name_what_writes_files(header, recipe, tensors):
    save = {"partial": {"dtype": "save"}, "args": ["x", "overwritten"], "kwargs": {}}
    recipe["made"] = {"make": "flowlib.IResNet", "args": [2], "kwargs": {"log_det": save}}


def name_no_dtype(header, recipe, tensors):
    recipe["made"]["args"] = [{"dtype": "load"}]


def describe_nothing(header, recipe, tensors):
    recipe["made"] = {}


def describe_nothing_among_sizes(header, recipe, tensors):
    recipe["made"]["args"] = [2, 2, {"tuple": [8, {}, 8]}]


def spell_a_number_wrong(header, recipe, tensors):
    recipe["made"]["args"] = [{"float": "x"}]


def leave_a_weight_out(header, recipe, tensors):
    del tensors["bijection.bijections.0.shift"]


def add_a_weight(header, recipe, tensors):
    tensors["more"] = torch.ones(2)


def shape_it_otherwise(header, recipe, tensors):
    tensors["bijection.bijections.0.shift"] = torch.zeros(3)


def ask_for_other_arguments(header, recipe, tensors):
    recipe["made"]["kwargs"]["n_leyers"] = 3


def leave_the_arguments_out(header, recipe, tensors):
    del recipe["made"]["args"]


def describe_what_there_is_not(header, recipe, tensors):
    recipe["made"]["args"] = [{"eval": "1 + 1"}]


def point_to_what_there_is_not(header, recipe, tensors):
    recipe["made"]["args"] = [{"same": 7}]


def ask_for_what_runs(header, recipe, tensors):
    recipe["made"]["asked"] = ["compile"]


def describe_it_within_itself(header, recipe, tensors):
    header["recipe"] = '{"tuple": [' * 100_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_version, "version 99"),
        (name_a_function, "os.system is unknown"),
        (name_another_class_of_python, "subprocess.Popen is unknown"),
        (name_no_module, "unknown"),
        (name_a_private_thing, "unknown"),
        (name_what_reads_pickles, "expected a class to make a partial of"),
        (name_what_writes_files, "expected a class to make a partial of"),
        (name_no_dtype, "expected the name of a dtype, got 'load'"),
        (describe_nothing, "expected the description of an argument"),
        (describe_nothing_among_sizes, "expected the description of an argument"),
        (spell_a_number_wrong, "or by hand: could not convert"),
        (leave_a_weight_out, "or by hand: .*[Mm]issing key"),
        (add_a_weight, "or by hand: .*[Uu]nexpected key"),
        (shape_it_otherwise, "or by hand: .*size mismatch"),
        (ask_for_other_arguments, "n_leyers"),
        (leave_the_arguments_out, "or by hand: 'args'"),
        (describe_what_there_is_not, "'eval'"),
        (point_to_what_there_is_not, "or by hand: list index"),
        (ask_for_what_runs, "expected what a RealNVP computes when asked, got compile"),
        (describe_it_within_itself, "or by hand: .*recursion"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_changed_file_is_refused(written, change, says, tmp_path, monkeypatch):
    rewritten(written, change)
    monkeypatch.chdir(tmp_path)
    torch.save(Bomb(), "evil.pt")
    with pytest.raises(ValueError, match=f"(?s){says}") as raised:
        load(written)
    assert str(written) in str(raised.value)
    assert sorted(os.listdir()) == ["evil.pt", "flow"]


def test_what_cannot_be_written_is_said_before_anything_is(tmp_path):
    cases = {
        "transformer of RealNVP was given the function .*<lambda>": lambda: RealNVP(
            4, 2, (8,), transformer=lambda dim: Spline(dim)
        ),
        "activation of BernoulliMADE was given the function .*<lambda>": lambda: BernoulliMADE(
            4, (8,), activation=lambda: nn.ReLU()
        ),
        "a class that flowlib cannot make again": lambda: Flow(
            Coupling(half_mask(4), Foreign(), Affine(2)), StandardNormal(4)
        ),
    }
    for says, make in cases.items():
        with pytest.raises(TypeError, match=says):
            make().save(tmp_path / "flow")
    assert not os.listdir(tmp_path)
    with pytest.raises(TypeError, match="expected a flow"):
        saving.save(nn.Linear(2, 2), tmp_path / "flow")
    with torch.device("meta"):
        empty = RealNVP(2, 2, (8,))
    with pytest.raises(ValueError, match="meta"):
        empty.save(tmp_path / "flow")


class Foreign(nn.Module):
    def forward(self, x):
        return torch.cat((x, x), 1)


def test_a_flow_changed_since_is_refused_and_one_put_together_anew_is_not(tmp_path):
    flow = IResNet(4, 2, 8)
    flow.bijection[1].tol = 1e-3
    with pytest.raises(ValueError, match=r"bijection\.bijections\.1\.tol is 0\.001"):
        flow.save(tmp_path / "flow")
    flow = RealNVP(4, 2, (8,))
    flow.bijection.bijections.append(LULinear(4))
    with pytest.raises(ValueError, match="changed after it was made"):
        flow.save(tmp_path / "flow")
    Flow(flow.bijection, flow.base).save(tmp_path / "flow")
    assert len(load(tmp_path / "flow").bijection) == 4


# --- classes of one's own ---------------------------------------------------------------------


SCRIPT = """
import sys, torch
from flowlib import Bijection, Flow, StandardNormal, load

{definition}

if sys.argv[1] == "save":
    Flow(Twice(), StandardNormal(2)).save(sys.argv[2])
else:
    print(load(sys.argv[2]).log_prob(torch.zeros(1, 2)).item())
"""
DEFINITION = """
class Twice(Bijection):
    context_dim = 0
    def forward(self, x, context=None):
        return 2 * x, x.new_full((len(x),), 1.3863)
    def inverse(self, z, context=None):
        return z / 2, z.new_full((len(z),), -1.3863)
"""


def test_a_class_of_a_script_is_found_in_another_and_asked_for_where_it_is_missing(tmp_path):
    path = tmp_path / "flow"

    def run(what, definition):
        script = tmp_path / f"{what}.py"
        script.write_text(SCRIPT.format(definition=definition))
        command = [sys.executable, str(script), what, str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert run("save", DEFINITION).returncode == 0
    assert float(run("load", DEFINITION).stdout) == pytest.approx(-0.4516, abs=1e-3)
    missing = run("load", "")
    assert "Twice is unknown here; if it is yours, import the module" in missing.stderr


def test_a_class_says_itself_how_it_is_made_again(tmp_path):
    class Counted(Recorded, nn.Module):
        def __init__(self, items):
            super().__init__()
            self.total = sum(items)

        def arguments(self):
            return saving.Arguments(([self.total],))

    given = Counted(i for i in range(4))
    saving.save(given, tmp_path / "one")
    assert load(tmp_path / "one").total == 6


class Both(Bijection):
    """Its parts come by name, and one of them twice."""

    context_dim = 0

    def __init__(self, first, *, then, last):
        super().__init__()
        self.parts = nn.ModuleList([first, then, last])

    def forward(self, x, context=None):
        return Compose(self.parts)(x)

    def inverse(self, z, context=None):
        return Compose(self.parts).inverse(z)


def test_what_is_given_twice_by_name_is_the_same_again(tmp_path):
    a, b = randomize(ElementwiseAffine(2)), randomize(ElementwiseAffine(2))
    flow = Flow(Both(a, then=b, last=a), StandardNormal(2))
    flow.save(tmp_path / "flow")
    again = load(tmp_path / "flow")
    x = torch.randn(5, 2)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
    assert again.bijection.parts[2] is again.bijection.parts[0]


def test_weights_that_were_tied_by_hand_are_tied_again(tmp_path):
    flow = RealNVP(2, 2, (8,))
    one, other = (flow.bijection[k].conditioner.layers[0] for k in (1, 2))
    other.weight = one.weight
    flow.save(tmp_path / "flow")
    again = load(tmp_path / "flow")
    assert len(list(again.parameters())) == len(list(flow.parameters()))
    one, other = (again.bijection[k].conditioner.layers[0] for k in (1, 2))
    assert other.weight is one.weight


def test_arguments_are_kept_as_they_were(tmp_path):
    names = ["a", "b"]
    shifted = Shifted(2, 0.1, names)
    names.append("c")
    assert shifted.arguments().args == (2, 0.1, ["a", "b"])


def test_a_subclass_may_have_another_constructor(tmp_path):
    Flow(ResidualBlock(Branch(2, 8), Three()), StandardNormal(2)).save(tmp_path / "flow")
    assert load(tmp_path / "flow").bijection.log_det.n_terms == 3


class Three(PowerSeries):
    def __init__(self):
        super().__init__(3)


def test_a_class_of_a_script_is_not_taken_for_one_of_the_library():
    assert saving._found("__main__.Affine") is None
    assert saving._found("flowlib.Affine") is Affine


def test_a_neighbouring_file_is_left_alone(tmp_path):
    (tmp_path / "flow.new").write_text("mine")
    RealNVP(2, 2, (8,)).save(tmp_path / "flow")
    assert (tmp_path / "flow.new").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["flow", "flow.new"]


def test_no_two_classes_of_the_library_have_one_name():
    assert len([name for name in saving.KNOWN if name.startswith("flowlib.")]) > 40
    found = {}
    for cls in every_subclass(Recorded):
        if cls.__module__.startswith("flowlib."):
            assert found.setdefault(f"flowlib.{cls.__qualname__}", cls) is cls


def every_subclass(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from every_subclass(sub)


def test_remade_is_the_same_with_weights_of_its_own():
    flow = randomize(RealNVP(5, 4, (8,)))
    before = torch.get_rng_state()
    again = saving.remake(flow)
    assert torch.equal(before, torch.get_rng_state())
    assert {n: w.shape for n, w in again.state_dict().items()} == {
        n: w.shape for n, w in flow.state_dict().items()
    }
    assert not torch.equal(again.bijection[0].shift, flow.bijection[0].shift)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FLOWS)
def test_from_a_gpu_to_a_cpu_and_back(name, tmp_path):
    flow = randomize(FLOWS[name]()).eval()
    flow.cuda().save(tmp_path / "flow")
    x, context = rows(flow, torch.float32)
    there = load(tmp_path / "flow", device="cuda")
    given = None if context is None else context.cuda()
    assert torch.equal(there.log_prob(x.cuda(), given), flow.log_prob(x.cuda(), given))
    here = load(tmp_path / "flow")
    assert torch.equal(here.log_prob(x, context), flow.cpu().log_prob(x, context))
