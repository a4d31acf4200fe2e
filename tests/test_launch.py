"""How a run on several processes is started, watched, stopped and gone on with, and the page on it.

What the processes compute is in test_engine.py.
"""

import contextlib
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.run import parse_args
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from flowlib import Flow, LULinear, StandardNormal, fit
from flowlib.engines import LAUNCHED, Team
from tools.notebooks import ROOT

accelerate = pytest.importorskip("accelerate")
PAGE = (ROOT / "book" / "scale.md").read_text()
QUIET = {"OMP_NUM_THREADS": "1", "FLOWLIB_PROGRESS": "0", "PYTHONPATH": str(ROOT)}
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SHELL = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
PRINTED = re.findall(r"```text\n(.*?)```", PAGE, re.S)
in_main_thread = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals are the main one's"
)


def block(word):
    """The one Python block of the page in which a word is."""
    (found,) = (text for text in PYTHON if word in text)
    return found


@pytest.fixture
def engine(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    yield accelerate.Accelerator(cpu=True)
    accelerate.state.AcceleratorState._reset_state(True)


def linear():
    return Flow(LULinear(3), StandardNormal(3))


def rows(n=200):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0))


# --- several processes --------------------------------------------------------------------------

CASES = """
import json, logging, os, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from tests.test_launch import linear, rows
from flowlib import fit

said, here = [], Path(sys.argv[1])
rank = int(os.environ["RANK"])
(own := here / str(rank)).mkdir()

class Listener(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("flowlib").addHandler(Listener())
logging.getLogger("flowlib").setLevel(logging.INFO)

def attempt(engine, x, **options):
    try:
        return len(fit(linear(), x, engine=engine, steps=20, eval_every=10, **options).train)
    except ValueError as error:
        return f"ValueError: {error}"
    except RuntimeError as error:
        return f"RuntimeError: {error}"

x = rows()
found = {"alone": attempt(Accelerator(), x) if not torch.cuda.is_available() else ""}
from accelerate.state import AcceleratorState
AcceleratorState._reset_state(True)
engine = Accelerator(cpu=True)
wrong = x.clone()
wrong[7, 1] = float("nan")
found["one has a gap"] = attempt(engine, wrong if rank else x)
found["a run"] = attempt(engine, x, checkpoint=here / "run.pt")
found["goes on"] = attempt(engine, x, checkpoint=here / "run.pt")
if rank:
    (own / "run.pt").write_bytes((here / "run.pt").read_bytes())
found["on another host"] = attempt(engine, x, checkpoint=own / "run.pt")
found["log"] = said
(here / f"{rank}.json").write_text(json.dumps(found))
"""

STOPPED = """
import os, signal, sys, time
from pathlib import Path
from accelerate import Accelerator
from tests.test_launch import linear, rows
from flowlib import fit

PAGE_SAYS
here, x, engine = Path(sys.argv[1]), rows(), Accelerator(cpu=True)

def batch(step):
    time.sleep(0.01)
    if step == 10:
        (here / f"{engine.process_index}.began").touch()
    return x

history = fit(linear(), batch, engine=engine, steps=100_000)
time.sleep(0.5)  # what follows: saving, say
text = f"{history.interrupted} {len(history.train)}"
(here / f"{engine.process_index}.ended").write_text(text)
"""


def launched(script, folder):
    """torchrun and two processes, in a process group of their own."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    (folder / "script.py").write_text(script)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", port),
        *(str(folder / "script.py"), str(folder)),
    ]
    env = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    return subprocess.Popen(
        command, env={**env, **QUIET}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@contextlib.contextmanager
def none_left(run):
    """Whatever happens, no process of the group outlives this context."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


def test_what_two_processes_are_told(tmp_path):
    run = launched(CASES, tmp_path)
    with none_left(run):
        _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    main, other = (json.loads((tmp_path / f"{k}.json").read_text()) for k in range(2))
    for mine in (main, other):
        if mine["alone"]:
            assert "expected an engine of 2 processes, since WORLD_SIZE=2" in mine["alone"]
        assert mine["a run"] == mine["goes on"] == 20
        assert "expected the checkpoint" in mine["on another host"]
        assert "got one on another host and none there" in mine["on another host"]
    assert other["one has a gap"].startswith(
        "ValueError: fit: expected finite values, got nan at data[7, 1]"
    )
    assert main["one has a gap"] == (
        "RuntimeError: fit: process 1 of 2 failed when it took its data, and all end: "
        + other["one has a gap"]
    )
    assert other["log"] == []
    assert [re.sub(r"-?\d+\.\d{4}\b", "#", line) for line in main["log"]] == [
        f"fit: begins, on 2 processes; its checkpoint is {tmp_path}/run.pt",
        "fit: step 10 of 20, training loss #, validation loss #",
        "fit: step 20 of 20, training loss #, validation loss #",
        f"fit: goes on after step 20 of 20, on 2 processes; its checkpoint is {tmp_path}/run.pt",
    ]


def test_a_time_limit_ends_the_run_on_all_processes_after_the_same_step(tmp_path):
    """As SLURM and torchrun have it: both say SIGTERM to every process."""
    run = launched(STOPPED.replace("PAGE_SAYS", block("SIGTERM")), tmp_path)
    with none_left(run):
        for _ in range(1200):
            if len([*tmp_path.glob("*.began")]) == 2 or run.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGTERM)
        _, errors = run.communicate(timeout=100)
    ended = [file.read_text() for file in sorted(tmp_path.glob("*.ended"))]
    assert len(ended) == 2, errors
    assert ended[0] == ended[1]
    interrupted, steps = ended[0].split()
    assert interrupted == "True"
    assert 9 <= int(steps) < 100_000


# --- one process --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAUNCHED)
def test_an_engine_of_one_where_two_were_launched_is_refused(engine, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    with pytest.raises(ValueError, match=rf"fit: .* {name}=2 .*make it as Accelerator\(cpu=True\)"):
        fit(linear(), rows(), engine=engine, steps=1)
    monkeypatch.setenv(name, "1")
    fit(linear(), rows(), engine=engine, steps=1)


def team_of_two(engine):
    names = (
        "autocast", "device", "distributed_type", "gradient_accumulation_steps",
        "is_main_process", "mixed_precision", "process_index",
    )  # fmt: skip
    return Team("fit", SimpleNamespace(num_processes=2, **{n: getattr(engine, n) for n in names}))


def raises(number):
    """Whether a signal ends what runs, at once."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        return True
    return False


@in_main_thread
def test_torchruns_echo_is_no_second_ctrl_c(engine, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    before = signal.getsignal(signal.SIGINT)
    team = team_of_two(engine)
    with team._listening():
        assert [raises(signal.SIGINT) for _ in range(3)] == [False, False, True]
        assert team.interrupted
    team = team_of_two(engine)
    team.told = True  # the others have heard of it
    with team._listening():
        assert not raises(signal.SIGINT)
    assert not raises(signal.SIGINT)  # the echo comes late
    assert signal.getsignal(signal.SIGINT) is before


@in_main_thread
@pytest.mark.parametrize("asked", [True, False])
def test_a_sigterm_waits_for_the_others_if_it_was_made_a_ctrl_c(engine, asked):
    before = signal.getsignal(signal.SIGTERM)
    its = signal.default_int_handler if asked else lambda *_: heard.append(1)
    heard = []
    signal.signal(signal.SIGTERM, its)
    try:
        team = team_of_two(engine)
        team.told = True
        with team._listening():
            assert not any(raises(signal.SIGTERM) for _ in range(3))
        assert (team.interrupted, len(heard)) == ((True, 0) if asked else (False, 3))
        assert signal.getsignal(signal.SIGTERM) is its
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_says_in_the_log_where_it_begins(caplog, tmp_path):
    caplog.set_level(logging.INFO, "flowlib")
    options = {"eval_every": 10, "schedule": "constant", "checkpoint": tmp_path / "run.pt"}
    fit(linear(), lambda step: rows(), steps=10, **options)
    fit(linear(), lambda step: rows(), steps=20, **options)
    assert [re.sub(r"-?\d+\.\d{4}\b", "#", line) for line in caplog.messages] == [
        f"fit: begins, on 1 process; its checkpoint is {tmp_path}/run.pt",
        "fit: step 10 of 10, training loss #",
        f"fit: goes on after step 10 of 20, on 1 process; its checkpoint is {tmp_path}/run.pt",
        "fit: step 20 of 20, training loss #",
    ]


def test_a_run_gets_more_steps_where_no_rate_depends_on_them(tmp_path):
    def run(steps, schedule, name):
        torch.manual_seed(0)
        flow = linear()
        options = {"schedule": schedule, "eval_every": 5, "validation": 0}
        return flow, fit(flow, rows(), steps=steps, checkpoint=tmp_path / name, **options)

    run(20, "constant", "run.pt")
    flow, history = run(40, "constant", "run.pt")
    whole, its = run(40, "constant", "other.pt")
    assert history == its
    assert all(map(torch.equal, flow.state_dict().values(), whole.state_dict().values()))
    run(20, "cosine", "cosine.pt")
    assert len(run(20, "cosine", "cosine.pt")[1].train) == 20  # it has ended, and comes back
    with pytest.raises(ValueError, match=r"steps was 20, is 40\. .* fit the trained flow again"):
        run(40, "cosine", "cosine.pt")


# --- the page -------------------------------------------------------------------------------------


def test_the_page_counts_what_its_code_counts():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block("SUSTAINED"), {})
    assert printed.getvalue() == PRINTED[-1]


class Operations(TorchDispatchMode):
    """Counts operations on tensors; views, which compute nothing, aside."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in results)
        self.count += not view
        return function(*args, **(kwargs or {}))


def work(flow, rows, device):
    """Operations, and floating-point operations, of a loss and its gradient."""
    flow = flow.to(device).train()
    operations, flops = Operations(), FlopCounterMode(display=False)
    for counter in (operations, flops):
        flow.zero_grad()
        torch.manual_seed(0)
        with counter:
            flow.log_prob(torch.rand(rows, *flow.event_shape, device=device)).mean().backward()
    return [operations.count, flops.get_total_flops()]


def test_the_work_that_the_page_assumes_is_what_flows_do():
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(block("SUSTAINED"), names)
    for flow in (names["maf"][0], names["pictures"][0]):
        assert f"{sum(p.numel() for p in flow.parameters()):,}" in PAGE
    flow, operations, flops = names["maf"]
    flow.initialize(torch.randn(100, 63))
    found = work(flow, 1, "cpu")
    assert found == [pytest.approx(operations, rel=0.02), pytest.approx(flops(1), rel=0.01)]
    flow, operations, flops = names["pictures"]  # on no device, which is quick
    found = work(flow, 32, "meta")
    assert found == [pytest.approx(operations, rel=0.1), pytest.approx(flops(32), rel=0.2)]


def test_what_the_page_launches_can_be_launched(tmp_path):
    commands, script = SHELL
    for text in SHELL:
        file = tmp_path / "launch.sh"
        file.write_text(text)
        subprocess.run(["bash", "-n", file], check=True)
        assert max(map(len, text.splitlines())) <= 40  # a phone has room for as many
    found = []
    for line in (commands + script).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "torchrun" in words:
            found.append(parse_args(words[words.index("torchrun") + 1 :]))
    one, four = found
    assert (one.nnodes, one.nproc_per_node, one.standalone) == ("1:1", "8", True)
    assert (four.nnodes, four.nproc_per_node, four.rdzv_backend) == ("4", "8", "c10d")
    assert {run.training_script for run in found} == {"train.py"}
    assert "#SBATCH --nodes=4" in script


def test_the_pages_other_lines_run(engine):
    names = {"Accelerator": lambda **kwargs: kwargs}
    exec(block("InitProcessGroupKwargs"), names)
    assert names["engine"]["kwargs_handlers"][0].timeout.total_seconds() == 60
    assert "logging.basicConfig(level=logging.INFO)" in block("import logging")
    begins, step = PRINTED[0].splitlines()
    assert begins == "INFO:flowlib:fit: begins, on 2 processes; its checkpoint is run.pt"
    assert re.fullmatch(
        r"INFO:flowlib:fit: step 500 of 20000, training loss \d+\.\d{4}, validation loss "
        r"\d+\.\d{4}",
        step,
    )
