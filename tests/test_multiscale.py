"""MultiscaleExplorer in a real browser: values, places and statuses are flowlib's."""

import pytest
import torch
from torch import nn
from traitlets import TraitError

from flowlib import (
    ActNorm,
    Affine,
    Compose,
    Coupling,
    FactorOut,
    Flatten,
    Flow,
    ImageRealNVP,
    Inverse,
    Logit,
    LULinear,
    MaskedCoupling,
    Permutation,
    Sigmoid,
    Squeeze,
    StandardNormal,
    half_mask,
)
from flowlib.nn import ConvNet
from flowlib.widgets import MultiscaleExplorer
from tests import browser
from tests.browser import solved
from tests.models import shaken

in_browser = pytest.mark.browser


def make(shape=(1, 8, 8), pictures=2):
    flow = shaken(lambda: ImageRealNVP(shape, hidden=4), scale=0.2, seed=3)
    draw = torch.Generator().manual_seed(3)
    return flow, torch.rand(pictures, *shape, generator=draw).double()


@torch.no_grad()
def arrays(flow, x):
    """The array on its way before the first step and after each, as the layers themselves saw it;
    after all has left, an empty one."""
    seen = []

    def entered(layer, inputs):
        if isinstance(layer, FactorOut) or not isinstance(layer, Compose):
            seen.append(inputs[0])

    layers = [m for m in flow.bijection.modules() if hasattr(m, "inverse") and hasattr(m, "train")]
    hooks = [m.register_forward_pre_hook(entered) for m in layers if not isinstance(m, Affine)]
    flow.bijection(x)
    for hook in hooks:
        hook.remove()
    return [*seen, x[:, :0]]


def cells(explorer, view):
    """Of each cell of a view its grey in percent, None where it is empty, and its marks."""
    browser.settle(explorer)
    return explorer.evaluate(
        """(e, view) => {
          const cells = e.querySelectorAll(`[data-view="${view}"] > g:not(.fl-grab)`);
          return [...cells].map((g) => {
            const grey = g.querySelector(".fl-grey");
            const has = (name) => g.querySelector(".fl-" + name) !== null;
            return {
              grey: grey && Number.parseFloat(grey.style.getPropertyValue("--fl-level")),
              marks: ["moved", "each", "leaves", "left"].filter(has).join(),
            };
          });
        }""",
        view,
    )


def greys(values):
    return pytest.approx([(100 * (v + 3) / 6).clamp(0, 100).item() for v in values], abs=0.7)


def follow(explorer):
    browser.settle(explorer)
    return explorer.locator("[data-follow]").evaluate("e => ({...e.dataset})")


def state(explorer):
    return browser.state(explorer, "picture", "depth", "pixel")


def middle(explorer, view, k):
    """The middle of cell k of a view, on the page."""
    explorer.locator(f'[data-view="{view}"]').scroll_into_view_if_needed()
    return explorer.evaluate(
        """(e, [view, k]) => {
          const g = e.querySelectorAll(`[data-view="${view}"] > g:not(.fl-grab)`)[k];
          const box = g.firstChild.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }""",
        [view, k],
    )


# --- what it computes -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 4), (1, 16, 16), (2, 4, 4)])
def test_the_latent_is_the_flows_and_each_number_is_one_pixels(shape):
    flow, x = make(shape)
    explorer = MultiscaleExplorer(flow, x)
    order = explorer.steps[-1]["order"]
    assert sorted(order) == list(range(x[0].numel()))
    with torch.no_grad():
        z, log_det = flow.bijection(x)
    assert torch.allclose(torch.tensor(explorer.values)[:, -1, order].double(), z, atol=6e-3)
    steps = len(explorer.steps)
    assert torch.tensor(explorer.log_dets).sum(1).tolist() == pytest.approx(
        log_det.tolist(), abs=0.006 * steps
    )


def test_a_flow_of_untrained_couplings_carries_each_number_to_the_named_place():
    flow = ImageRealNVP((1, 16, 16), hidden=4).double()
    x = torch.rand(1, 1, 16, 16).double()
    with torch.no_grad():
        z, there = flow.bijection(x)[0][0], flow.bijection[0](x)[0].flatten()
    order = MultiscaleExplorer(flow, x).steps[-1]["order"]
    assert torch.allclose(z, there[order])  # couplings start as the identity


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 4)])
def test_each_step_has_the_array_that_the_layers_see(shape):
    flow, x = make(shape)
    explorer = MultiscaleExplorer(flow, x)
    seen = arrays(flow, x)
    assert len(seen) == len(explorer.steps) + 1
    for k, (step, array) in enumerate(zip(explorer.steps, seen[1:], strict=True)):
        left = x[0].numel() - array[0].numel()
        on_its_way = step["order"][left:]
        assert step["shape"] == list(array.shape[1:]) or not array.numel()
        shown = torch.tensor(explorer.values)[:, k + 1, on_its_way].double()
        assert torch.allclose(shown, array.flatten(1), atol=6e-3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 4)])
def test_what_is_said_to_wait_has_the_same_value_and_what_moves_another(shape):
    flow, x = make(shape)
    explorer = MultiscaleExplorer(flow, x)
    values = torch.tensor(explorer.values)
    before = list(range(x[0].numel()))
    gone = set()
    for k, step in enumerate(explorer.steps):
        status = torch.tensor([ord(letter) for letter in step["status"]])
        same = (values[:, k] == values[:, k + 1]).float()
        for letter in "krl-":
            assert same[:, status == ord(letter)].all()
        for letter in "me":
            if letter in step["status"]:
                assert same[:, status == ord(letter)].mean() < 0.15
        assert {i for i, letter in enumerate(step["status"]) if letter == "-"} == gone
        gone |= {i for i, letter in enumerate(step["status"]) if letter == "l"}
        assert set(step["order"][: len(gone)]) == gone
        if set(step["status"]) & set("mke") and "l" not in step["status"]:
            assert step["order"] == before  # couplings and norms carry nothing
        before = step["order"]
    assert len(gone) == x[0].numel()


def test_what_moves_by_itself_and_by_what_others_say_is_as_the_jacobian_has_it():
    flow, x = make()
    explorer = MultiscaleExplorer(flow, x[:1])
    layers = [*flow.bijection][:14]
    for k, (layer, array) in enumerate(zip(layers, arrays(flow, x[:1]), strict=False)):
        step = explorer.steps[k]
        jacobian = torch.autograd.functional.jacobian(lambda a, f=layer: f(a)[0].flatten(), array)
        jacobian = jacobian.reshape(64, 64)
        if step["kind"] == "each":
            assert torch.equal(jacobian, jacobian.diag().diag())
        elif step["kind"] in ("pixels", "channels"):
            letters = [step["status"][i] for i in step["order"]]
            kept = torch.tensor([letter == "k" for letter in letters])
            assert torch.equal(jacobian[kept], torch.eye(64).double()[kept])
            assert not jacobian[~kept][:, ~kept].fill_diagonal_(0).any()


def test_the_books_digits_are_taken_through_24_steps():
    explorer = MultiscaleExplorer()
    names = [step["name"] for step in explorer.steps]
    coupling = ["ActNorm", "checkerboard coupling"]
    assert names == [
        "logit", *3 * coupling, "squeeze", *3 * ["ActNorm", "channel coupling"], "half leaves",
        *4 * coupling, "the rest leaves",
    ]  # fmt: skip
    left = [64 - torch.Size(step["shape"]).numel() for step in explorer.steps]
    assert left == [0] * 14 + [32] * 9 + [64]
    assert explorer.labels == ["digit 3", "digit 0", "digit 7", "digit 4"]
    assert len(explorer._repr_mimebundle_()[0]["text/html"]) < 140_000


def test_other_masks_other_parts_and_other_maps_have_their_names():
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[0] = True
    flow = Compose([
        Inverse(Sigmoid()), Sigmoid(), MaskedCoupling(mask, ConvNet(3, 4, 6), Affine(3)),
        FactorOut((3, 2, 2), Compose([Inverse(ActNorm((2, 2, 2))), Flatten((2, 2, 2))])),
    ])  # fmt: skip
    explorer = MultiscaleExplorer(flow, 0.5 * torch.rand(1, 3, 2, 2))
    assert [step["name"] for step in explorer.steps] == [
        "Sigmoid⁻¹", "Sigmoid", "masked coupling", "a part leaves", "ActNorm⁻¹", "the rest leaves",
    ]  # fmt: skip
    assert explorer.steps[3]["order"][:4] == [8, 9, 10, 11]


def test_the_flow_is_copied_and_no_randomness_is_touched():
    flow, x = make()
    MultiscaleExplorer(flow.float(), x)
    assert next(flow.parameters()).dtype == torch.float32
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    MultiscaleExplorer()
    assert torch.equal(torch.rand(3), expected)


# --- what it shows --------------------------------------------------------------------------


@in_browser
def test_all_views_show_flowlibs_values_places_and_statuses(watch):
    flow, x = make()
    widget = MultiscaleExplorer(flow, x, pixel=29)
    explorer = browser.alone(watch(), widget)
    z = flow.bijection(x)[0][0].detach()
    seen = arrays(flow, x)
    marks = {"m": "moved", "e": "each", "k": "", "r": "", "l": "leaves", "-": "left"}
    for depth in (1, 3, 8, 10, 15, 17, 24):
        browser.put_sliders(explorer, {"depth": depth})
        step, array = widget.steps[depth - 1], seen[depth][0].flatten()
        pixels = cells(explorer, "picture")
        assert [cell["marks"] for cell in pixels] == [marks[s] for s in step["status"]]
        assert [cell["grey"] for cell in pixels] == greys(torch.tensor(widget.values[0][depth]))
        assert [cell["grey"] for cell in cells(explorer, "array")] == greys(array)
        left = 64 - len(array)
        latent = [*cells(explorer, "z0"), *cells(explorer, "z32")]
        arrived = ["leaves" if step["status"][i] == "l" else "left" for i in step["order"]]
        assert [cell["marks"] for cell in latent[:left]] == arrived[:left]
        assert [cell["grey"] for cell in latent[:left]] == greys(z[:left])
        assert all(cell["grey"] is None for cell in latent[left:])
        said = follow(explorer)
        assert float(z[int(said["latent"])]) == pytest.approx(widget.values[0][-1][29], abs=6e-3)
        if said["place"]:
            place = tuple(map(int, said["place"].split(",")))
            assert seen[depth][0][place].item() == pytest.approx(float(said["value"]), abs=6e-3)
        else:
            assert float(said["value"]) == pytest.approx(z[int(said["latent"])].item(), abs=6e-3)
        assert said["status"] == step["status"][29]
        number = browser.readouts(explorer)["log_det"]
        assert number == pytest.approx(widget.log_dets[0][depth - 1])


@in_browser
def test_the_data_are_shown_from_0_to_1(watch):
    flow, x = make()
    explorer = browser.alone(watch(), MultiscaleExplorer(flow, x))
    for view in ("picture", "array"):
        shown = [cell["grey"] for cell in cells(explorer, view)]
        assert shown == pytest.approx((100 * x[0].flatten()).tolist(), abs=1.1)
    assert "log_det" not in browser.readouts(explorer)


@in_browser
def test_a_pixel_is_chosen_with_the_mouse_in_any_view(watch):
    one = watch()
    flow, x = make()
    widget = MultiscaleExplorer(flow, x, depth=15)
    explorer = browser.alone(one, widget)
    order = widget.steps[14]["order"]
    for view, k, pixel in (("picture", 9, 9), ("array", 21, order[32 + 21]), ("z0", 6, order[6])):
        one.page.mouse.click(*middle(explorer, view, k))
        assert state(explorer) == [0, 15, pixel]
        rings = explorer.locator(".fl-grab:visible").count()
        assert rings == 2 + (pixel in order[32:])  # what has left is in the array no more
    one.page.mouse.click(*middle(explorer, "z32", 3))  # there is no number yet
    assert state(explorer) == [0, 15, order[6]]
    left, right = middle(explorer, "picture", 16), middle(explorer, "picture", 19)
    one.page.mouse.move(*left)
    one.page.mouse.down()
    one.page.mouse.move(*right)
    one.page.mouse.up()
    assert state(explorer)[2] == 19


@in_browser
def test_the_arrow_keys_go_from_cell_to_cell_in_any_view(watch):
    one = watch()
    flow, x = make()
    widget = MultiscaleExplorer(flow, x, pixel=36, depth=10)
    explorer = browser.alone(one, widget)
    order = widget.steps[9]["order"]

    def press(view, *keys):
        explorer.locator(f'[data-handle="{view}"]').focus()
        for key in keys:
            one.page.keyboard.press(key)
            browser.settle(explorer)
        return state(explorer)[2]

    assert press("picture", "ArrowRight", "ArrowUp") == 36 + 1 - 8
    assert press("picture", *8 * ["ArrowLeft"]) == 24
    spot = order.index(24)
    assert press("array", "ArrowRight") == order[spot + 1]
    explorer.locator('[data-preset="end"]').click()
    browser.settle(explorer)
    latent = widget.steps[-1]["order"]
    k = latent.index(state(explorer)[2])
    assert k < 24
    assert press("z0", "ArrowDown") == latent[k + 8]


@in_browser
def test_a_finger_chooses_a_pixel_on_a_phone_and_words_can_be_read(watch):
    one = watch(width=390, has_touch=True, is_mobile=True)
    flow, x = make()
    explorer = browser.alone(one, MultiscaleExplorer(flow, x, depth=8))
    one.page.touchscreen.tap(*middle(explorer, "picture", 42))
    assert state(explorer)[2] == 42
    assert explorer.locator("svg text").count() > 60
    assert browser.smallest_words(explorer) >= 11


@in_browser
def test_buttons_and_the_track_go_where_they_say(watch):
    flow, x = make()
    explorer = browser.alone(watch(), MultiscaleExplorer(flow, x, depth=1))
    for press, expected in [
        ('[data-action="next"]', [0, 2, 36]), ('[data-action="back"]', [0, 1, 36]),
        ('[data-preset="squeeze"]', [0, 8, 36]), ('[data-preset="leave"]', [0, 15, 36]),
        ('[data-preset="end"]', [0, 24, 36]), ('[data-action="next"]', [0, 24, 36]),
        ('[data-preset="data"]', [0, 0, 36]), ('[data-action="back"]', [0, 0, 36]),
        ('[data-picture="1"]', [1, 0, 36]), ('[data-step="5"]', [1, 5, 36]),
        ('[data-action="reset"]', [0, 1, 36]),
    ]:  # fmt: skip
        explorer.locator(press).click()
        assert state(explorer) == expected


@in_browser
def test_the_task_is_solved_by_following_the_number_back(watch):
    one = watch()
    flow, x = make()
    widget = MultiscaleExplorer(flow, x)
    explorer = browser.alone(one, widget)
    assert "z[37]" in explorer.locator("[data-task]").inner_text()
    assert not solved(explorer)
    explorer.locator('[data-preset="end"]').click()
    browser.settle(explorer)
    one.page.mouse.click(*middle(explorer, "z32", 5))
    assert not solved(explorer)  # it is not followed back yet
    explorer.locator('[data-preset="data"]').click()
    assert solved(explorer)
    assert state(explorer) == [0, 0, widget.steps[-1]["order"][37]]
    explorer.locator('[data-action="reset"]').click()
    assert not solved(explorer)


@in_browser
def test_the_task_is_no_gift(watch):
    flow, x = make()
    answer = MultiscaleExplorer(flow, x).steps[-1]["order"][37]
    assert not solved(browser.alone(watch(), MultiscaleExplorer(flow, x, pixel=answer)))


@in_browser
@pytest.mark.parametrize(("shape", "depth"), [((3, 8, 8), 10), ((1, 16, 16), 15), ((1, 4, 2), 3)])
def test_other_shapes_fit_the_page(watch, shape, depth):
    one = watch(width=320, has_touch=True, is_mobile=True)
    flow, x = make(shape)
    explorer = browser.alone(one, MultiscaleExplorer(flow, x, depth=depth))
    assert len(cells(explorer, "picture")) == x[0].numel()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 320


# --- what it refuses ------------------------------------------------------------------------


def on_vectors():
    flow = Compose([Flatten((1, 2, 2)), ActNorm(4)])
    return Flow(flow, StandardNormal(4), (1, 2, 2))


SMALL = torch.full((2, 1, 2, 2), 0.5)
SHAPE = (1, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(2, 2), SMALL), TypeError, "a Flow or a Bijection, got a Linear"),
        ((Flatten(SHAPE), None), TypeError, "expected pictures x"),
        ((Flatten(SHAPE), SMALL[0]), ValueError, r"1 to 6 pictures .* got shape \(1, 2, 2\)"),
        ((Flatten(SHAPE), SMALL.repeat(4, 1, 1, 1)), ValueError, r"got shape \(8, 1, 2, 2\)"),
        ((Flatten(SHAPE), torch.ones(1, 4, 2, 2)), ValueError, "1 to 3 channels"),
        ((Flatten(SHAPE), torch.ones(1, 1, 16, 17)), ValueError, "256 numbers"),
        ((Flatten(SHAPE), 17 * SMALL), ValueError, "unit interval, got values from 8.5 to 8.5"),
        ((Flatten(SHAPE), torch.nan * SMALL), ValueError, "unit interval"),
        ((ImageRealNVP((1, 4, 4)), SMALL), ValueError, r"of shape \(1, 4, 4\), as the flow has"),
        ((ImageRealNVP(SHAPE, context_dim=2), SMALL), ValueError, "without a context"),
        ((Flatten(SHAPE), SMALL, ["one"]), ValueError, "expected 2 labels, got 1"),
        ((Compose([]), SMALL), ValueError, "at least one step"),
        ((on_vectors(), SMALL), ValueError, "has left before layer 2: ActNorm"),
        ((Squeeze(SHAPE), SMALL), ValueError, "end in a Flatten, got a Squeeze as the last"),
        ((Compose([Permutation([0])]), SMALL), ValueError, "got a Permutation as layer 1"),
        ((Compose([Flatten(SHAPE), LULinear(4)]), SMALL), ValueError, "has left before layer 2"),
        ((Inverse(Squeeze(SHAPE)), SMALL), ValueError, "got a Squeeze⁻¹ as layer 1"),
        (
            (Coupling(half_mask(4), nn.Identity(), Affine(2)), SMALL),
            ValueError,
            r"Coupling: expected shape \(batch, 4\), got \(",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        MultiscaleExplorer(*arguments)


def test_a_layer_that_is_not_finite_is_named():
    broken = Compose([Logit(0.05), ActNorm(SHAPE), Flatten(SHAPE)])
    broken[1].log_scale.data.fill_(torch.inf)
    with pytest.raises(ValueError, match="layer 2 is not finite"):
        MultiscaleExplorer(broken, 0.9 * torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("picture", 2, "from 0 to 1, got 2"),
        ("depth", 25, "from 0 to 24, got 25"),
        ("depth", 1.5, "depth"),
        ("pixel", 64, "from 0 to 63, got 64"),
        ("pixel", -1, "got -1"),
    ],
)
def test_what_an_attribute_cannot_take(trait, value, message):
    with pytest.raises(TraitError, match=message):
        MultiscaleExplorer(*make(), **{trait: value})
