"""`fit(..., engine=...)`: one run, on however many processes, and nobody waits for the dead."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import flowlib
from flowlib import Dequantize, Flow, LULinear, RealNVP, StandardNormal, datasets, fit
from flowlib.engines import LOST, Team
from flowlib.shares import Share, on_a_share, present, summed

accelerate = pytest.importorskip("accelerate")
TEAM = Path(__file__).with_name("team.py")
QUIET = {"OMP_NUM_THREADS": "1", "FLOWLIB_PROGRESS": "0"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def launched(cases, folder, count=2, seconds=500):
    """What torchrun says of so many processes, and what the first has found."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)),
        *("--master-addr", "127.0.0.1", "--master-port", free_port()),
        *(str(TEAM), ",".join(cases), str(folder)),
    ]
    run = subprocess.run(
        command, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=seconds
    )
    files = [folder / f"{name}.json" for name in cases]
    return run, [json.loads(file.read_text()) for file in files if file.exists()]


@pytest.fixture
def engine():
    """One process, which is none but this."""
    yield lambda **options: accelerate.Accelerator(cpu=True, **options)
    accelerate.state.AcceleratorState._reset_state(True)


# --- two processes are one --------------------------------------------------------------------


def test_two_processes_with_half_the_batch_each_are_one_with_the_whole(tmp_path):
    """All in one launch, since to start takes as long as to compute."""
    run, found = launched(["page", "agree", "rows", "pieces", "halves", "trouble"], tmp_path)
    assert run.returncode == 0, run.stderr
    page, flows, rows, pieces, halves, (main, other) = found
    assert page == [60, True, ["flow.safetensors", "rows.npy", "run.pt"]]
    require_one_run(flows)
    require_shares(rows)
    assert "with a BatchNorm, whose statistics are those of a whole" in pieces.pop("refused")
    assert all(difference < 1e-7 for difference in pieces.values()), pieces
    for difference, dtypes, equal in halves.values():
        assert 0 < difference < 0.2
        assert dtypes == ["torch.float32"]
        assert equal
    require_company(main, other)


def require_one_run(flows):
    assert len(flows) == 7
    for name, flow in flows.items():
        assert flow["train"] < 1e-5, name
        assert flow["valid"] < 1e-5, name
        assert flow["falls"], name
        assert flow["equal"], name  # buffers before each step, and all at the end
    assert flows["ResidualFlow"]["states"] > 40  # power iterations, and running statistics
    assert flows["MAF with BatchNorm"]["states"] == 50


def require_shares(rows):
    loaded = rows.pop("loaded")
    assert all(difference < 1e-9 for difference in rows.values()), rows
    # 15 rows a batch: 7 of them for one process, 8 for the other, and none for both
    assert [len(part) for part in loaded] == [4 * 7, 4 * 8]
    assert sorted(loaded[0] + loaded[1]) == list(range(60))


def require_company(main, other):
    """What goes wrong on one process is said on both."""
    assert other["one fails"] == "OSError: the disk is gone"
    assert main["one fails"] == (
        "RuntimeError: fit: process 1 of 2 failed at step 3, and all end: OSError: the disk is gone"
    )
    for mine in (main, other):
        assert mine["then"][0] == mine["then"][1]  # the best weights so far are the first
        assert "FloatingPointError: fit: the loss is inf at step 3" in mine["not finite"]
        assert mine["Ctrl-C"] == [True, 6, 5]
        assert mine["ends"] == 4
        assert mine["ends early"].startswith(
            "RuntimeError: fit: expected as many batches on each of 2 processes, and at step 4 got "
            "no more on process 1, but one on others, and all end: Exhausted: the generator has"
        )
        assert mine["late Ctrl-C"] == [True, 10, 10]
        assert "expected the first batch to be the same on all 2 processes" in mine["other data"]
        assert "on process 1; seed what makes it" in mine["other data"]
    assert other["between"] == "OSError: the disk is gone"
    assert "process 1 of 2 failed at step 2, and all end: OSError: the" in main["between"]
    assert main["weights"] == other["weights"]
    assert "OSError: fit: cannot write a checkpoint at" in main["no folder"]
    assert "process 0 of 2 failed at its start" in other["no folder"]
    assert "nonsense.pt is no checkpoint" in main["nonsense"]
    assert "process 0 of 2 failed when it read the checkpoint" in other["nonsense"]


def forked(cases, folder, seconds, count):
    """The same without torchrun, which ends all when one has: what they say as they fail."""
    command = [sys.executable, str(TEAM), cases, str(folder), str(seconds), str(count)]
    with subprocess.Popen(
        command, env={**os.environ, **QUIET}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as run:  # fmt: skip
        try:
            _, said = run.communicate(timeout=500)
        finally:
            with contextlib.suppress(ProcessLookupError):  # all have ended, as they should
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 0, said
    return said


def read(path):
    return json.loads(path.read_text())


def test_a_group_that_was_killed_and_resumed_ends_with_the_same_bits(tmp_path):
    """Three of them: of two numbers the sum has no order, of three it must have the same again."""
    said = forked("killed,resumed", tmp_path, 180, 3)
    assert read(tmp_path / "killed.ends") == [1, -signal.SIGKILL, 1]
    assert "RuntimeError: fit: process 0 of 3 has lost the others at step" in said
    assert "RuntimeError: fit: process 2 of 3 has lost the others at step" in said
    assert not (tmp_path / "killed.json").exists()
    assert read(tmp_path / "resumed.ends") == [0, 0, 0], said
    assert read(tmp_path / "resumed.json") == [True, True, True]
    assert [path.name for path in tmp_path.glob("*.new")] == []


def test_who_is_lost_leaves_nobody_waiting(tmp_path):
    """One has ended and the other pair's has stopped, which only a time-out can tell."""
    limit = 10
    forked("dies+hangs", tmp_path, limit, 2)
    for name in ("dies", "hangs"):
        assert read(tmp_path / f"{name}.ends") == [0, -signal.SIGKILL]
        said = read(tmp_path / f"{name}.json")
        assert "RuntimeError: fit: process 0 of 2 has lost the others at step 5: one has" in said
        assert f"within the {limit} s of the process group, which InitProcessGroupKwargs(" in said


# --- one process --------------------------------------------------------------------------------


def on_moons(**options):
    torch.manual_seed(0)
    flow = RealNVP(2, 4, (16,))
    x = datasets.moons.sample(400, np.random.default_rng(0))
    return flow, fit(flow, x, steps=30, lr=3e-3, eval_every=10, **options)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_engine_of_one_process_changes_no_bit(engine):
    plain, history = on_moons()
    flow, its = on_moons(engine=engine())
    assert its == history
    assert same(flow, plain)
    assert "forward" not in vars(flow)
    assert next(flow.parameters()).grad is not None


def test_a_run_goes_on_with_an_engine_and_without(engine, tmp_path):
    path = tmp_path / "run.pt"
    first = on_moons(checkpoint=path)[1]
    assert on_moons(checkpoint=path, engine=engine())[1] == first
    accelerate.state.AcceleratorState._reset_state(True)
    with pytest.raises(ValueError, match="of another run: precision was no, is bf16"):
        on_moons(checkpoint=path, engine=engine(mixed_precision="bf16"))


def imitated(engine, **other):
    names = (
        "autocast", "device", "distributed_type", "gradient_accumulation_steps",
        "is_main_process", "mixed_precision", "num_processes", "process_index",
    )  # fmt: skip
    return types.SimpleNamespace(**{**{name: getattr(engine, name) for name in names}, **other})


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals are the main one's"
)
def test_ctrl_c_is_never_lost(engine):
    """One that comes when the processes have met for the last time, and a second one."""
    team = Team("fit", imitated(engine(), num_processes=2))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), team._listening():
        signal.raise_signal(signal.SIGINT)
    team = Team("fit", imitated(engine(), num_processes=2))
    with team._listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1", True),
        ("NCCL error in: ProcessGroupNCCL.cpp:1", True),
        ("MPI error in: ProcessGroupMPI.cpp:1", True),
        ("Timed out waiting 10000ms for recv operation to complete", True),
        ("CUDA error: an illegal address. Compile with `TORCH_USE_CUDA_DSA` to enable", False),
        ("The size of tensor a (3) must match the size of tensor b (2), an impish one", False),
    ],
)
def test_who_is_lost_is_told_from_other_errors(message, lost):
    assert bool(LOST.search(message)) == lost


def test_what_is_no_engine_or_goes_with_none(engine):
    x, flow = torch.randn(50, 2), Flow(LULinear(2), StandardNormal(2))
    one = engine()

    def like(**other):
        return imitated(one, **other)

    fit(flow, x, steps=1, engine=like())
    with pytest.raises(TypeError, match=r"to be an accelerate.Accelerator, got a str without"):
        fit(flow, x, engine="torchrun")
    with pytest.raises(ValueError, match="got one of distributed_type FSDP"):
        fit(flow, x, engine=like(distributed_type="DistributedType.FSDP"))
    with pytest.raises(ValueError, match=r'mixed_precision "no" or "bf16", got \'fp16\''):
        fit(flow, x, engine=like(mixed_precision="fp16"))
    with pytest.raises(ValueError, match="expected no device beside an engine, got device='cpu'"):
        fit(flow, x, engine=one, device="cpu")
    with pytest.raises(ValueError, match="expected no compile beside an engine"):
        fit(flow, x, engine=one, compile=True)
    with pytest.raises(ValueError, match="fit_variational: expected no engine"):
        flowlib.fit_variational(flow, lambda x: -x.square().sum(1), engine=one)
    loader = one.prepare(torch.utils.data.DataLoader(x, batch_size=5))
    with pytest.raises(ValueError, match=r"as it was before engine.prepare.*got a DataLoaderShard"):
        fit(flow, loader, engine=one)


# --- numbers that belong to rows ----------------------------------------------------------------


def test_rows_have_the_numbers_that_they_have_in_the_whole_batch():
    pixels, to_unit = torch.randint(9, (10, 3)), Dequantize(9)
    torch.manual_seed(0)
    whole = to_unit.noisy(pixels)
    parts = []
    for share in Share.of(10, 0, 2).cut(2) + Share.of(10, 1, 2).cut(2):
        torch.manual_seed(0)
        with on_a_share(share):
            parts.append(to_unit.noisy(pixels[share.start : share.stop]))
            assert present() == share
    assert [len(part) for part in parts] == [2, 3, 2, 3]
    assert torch.equal(torch.cat(parts), whole)
    assert present() is None
    assert torch.equal(summed(whole), whole)


# --- half precision -------------------------------------------------------------------------------

HALVES = {
    "NICE": lambda: flowlib.NICE(6, 4, 32),
    "RealNVP": lambda: RealNVP(6, 4, (32,)),
    "RealNVP, conditional": lambda: RealNVP(6, 4, (32,), context_dim=2),
    "RealNVP of splines": lambda: RealNVP(6, 4, (32,), transformer=lambda d: flowlib.Spline()),
    "ImageRealNVP": lambda: flowlib.ImageRealNVP((1, 8, 8), hidden=8),
    "MAF": lambda: flowlib.MAF(6, 3, (32,)),
    "IAF": lambda: flowlib.IAF(6, 3, (32,)),
    "IResNet": lambda: flowlib.IResNet(6, 3, 32),
    "ResidualFlow": lambda: flowlib.ResidualFlow(6, 3, 32),
    "ResidualFlow, recomputed": lambda: flowlib.ResidualFlow(6, 3, 32, recompute=True),
    "a power series": lambda: flowlib.IResNet(6, 3, 32, log_det=flowlib.PowerSeries),
    "Gaussian": lambda: Flow(LULinear(6), flowlib.MultivariateNormal(torch.ones(6), torch.eye(6))),
}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("training", [True, False])
def test_under_autocast_a_log_density_is_summed_in_float32(name, training):
    flow = HALVES[name]()
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    x = 0.05 + 0.9 * torch.rand(50, *flow.event_shape)
    context = torch.randn(50, 2) if flow.context_dim else None
    flow.train(training)
    found, gradients, terms = {}, {}, []

    def look(module, inputs, output):
        terms.append(output[1].dtype)

    for part in flow.bijection.modules():
        if isinstance(part, flowlib.Bijection):
            part.register_forward_hook(look)
    for half in (False, True):
        torch.manual_seed(1)
        flow.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found[half] = flow.log_prob(x, context)
        found[half].mean().backward()
        gradients[half] = torch.cat(
            [p.grad.flatten() for p in flow.parameters() if p.grad is not None]
        )
    assert {*terms, found[True].dtype} == {torch.float32}
    size = found[False].abs().max().item()
    assert (found[True] - found[False]).abs().max().item() < 0.02 * size
    assert torch.cosine_similarity(gradients[True], gradients[False], dim=0) > 0.98
    # where nothing is rounded, nothing differs: a linear map, and sums of what it makes
    assert torch.equal(found[True], found[False]) == (name == "Gaussian")


def test_under_autocast_an_inverse_is_as_exact_as_without():
    flow = flowlib.ResidualFlow(6, 3, 32)
    with torch.no_grad():
        for weights in flow.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    flow.eval()
    z = torch.randn(20, 6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        x, _ = flow.bijection.inverse(z)
    with torch.no_grad():
        assert (flow.bijection(x)[0] - z).abs().max() < 1e-4


# --- more than there is room for ----------------------------------------------------------------

BIG = """
import re, resource, sys
import numpy as np, torch
from flowlib import Flow, LULinear, StandardNormal, fit
from flowlib.rows import digest

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

path, limit = sys.argv[1], int(sys.argv[2])
small = np.lib.format.open_memmap(path + ".small", "w+", "<f8", (3000, 50))
small[:] = np.random.default_rng(0).normal(size=small.shape)
options = {"batch_size": 500, "eval_every": 20, "steps": 40, "progress": False}
fit(Flow(LULinear(50), StandardNormal(50)), np.load(path + ".small", mmap_mode="r"), **options)
used = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + limit * 2**20,) * 2)
before, seen = anonymous(), []
array = np.load(path, mmap_mode="r")
flow = Flow(LULinear(50), StandardNormal(50))
flow.bijection.register_forward_pre_hook(lambda *_: seen.append(anonymous()))
history = fit(flow, array, checkpoint=path + ".pt", **options)
print(array.nbytes / 2**20, max(seen) - before, history.valid[0][1], history.valid[-1][1])
try:
    np.array(array)
except MemoryError:
    print("no room for the array,", "accelerate" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_an_array_ten_times_larger_than_a_limit_of_memory_is_trained_on(tmp_path):
    path, limit = tmp_path / "array.npy", 60  # of which some 20 were seen to be used
    array = np.lib.format.open_memmap(path, "w+", "<f8", (1_575_000, 50))
    block = np.random.default_rng(0).normal(size=(10_500, 50)) + 5
    for k in range(0, len(array), len(block)):
        array[k : k + len(block)] = block + k * 1e-7
    del array
    try:
        run = subprocess.run(
            [sys.executable, "-c", BIG, str(path), str(limit)],
            env={**os.environ, **QUIET},
            capture_output=True,
            text=True,
            timeout=400,
        )
    finally:
        path.unlink()
    assert run.returncode == 0, run.stderr
    numbers, refused = run.stdout.splitlines()
    size, peak, first, last = map(float, numbers.split())
    assert size >= 10 * limit
    assert peak < limit
    assert last < first
    assert refused == "no room for the array, False"  # and without an engine, no engine
