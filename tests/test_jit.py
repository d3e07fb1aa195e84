"""`tg.jit` on a target that is none: what is captured, what is replayed, and what is refused."""

from __future__ import annotations

import inspect
import itertools
import random
import threading
from collections.abc import Iterator

import pytest

import tg_frontend as tg
from fake_target import fake_engine
from tg.capture import Jit, jit
from tg.engine import TgEngine
from tg.errors import JitError


@pytest.fixture(autouse=True)
def engine() -> Iterator[TgEngine]:
    made = fake_engine()
    tg.set_engine(made)
    yield made
    tg.set_engine(None)


def line_of(function, text: str) -> str:
    lines, start = inspect.getsourcelines(function)
    return f"line {start + next(n for n, line in enumerate(lines) if text in line)}"


# ---- replays ---------------------------------------------------------------------------------------------------


def test_replay_runs_no_python_and_schedules_nothing(engine):
    runs = itertools.count()

    @jit
    def step(x, y):
        next(runs)
        return {"sum": (x + y).sum(), "all": [x * y, (y, 7)]}

    for number in range(5):
        got = step(tg.Tensor([1.0, number]), tg.Tensor([2.0, 3.0]))
        if number == 1:
            count = engine.scheduled, engine._devices.runtime("FAKE").recorded
        assert got["sum"].item() == 6.0 + number
        assert got["all"][0].tolist() == [2.0, 3.0 * number] and got["all"][1][0].tolist() == [2.0, 3.0]
        assert got["all"][1][1] == 7
    assert (
        step.replays == 3
        and next(runs) == 2
        and count == (engine.scheduled, engine._devices.runtime("FAKE").recorded)
    )


def test_result_that_is_kept_is_not_overwritten_by_the_next_replay():
    step = jit(lambda x: x * 2)
    kept = [step(tg.Tensor([float(number)])) for number in range(6)]
    assert [each.item() for each in kept] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0] and step.replays == 4


def test_other_shapes_and_numbers_are_captured_by_themselves():
    step = jit(lambda x, factor, *, power=1: (x * factor) ** power)
    for _ in range(4):
        assert step(tg.ones(2), 3).tolist() == [3.0, 3.0]
        assert step(tg.ones(3), 3).tolist() == [3.0] * 3
        assert step(tg.ones(2), 2, power=2).tolist() == [4.0, 4.0]
    assert step.replays == 6


def test_view_as_an_argument_counts_by_its_value():
    step = jit(lambda x: x.sum())
    rows = tg.arange(6, dtype="float32").reshape(3, 2).realize()
    assert [step(rows[number % 3]).item() for number in range(6)] == [1.0, 5.0, 9.0, 1.0, 5.0, 9.0]
    assert step.replays == 4


def test_one_tensor_as_two_arguments_is_not_two_tensors():
    @jit
    def step(x, y):
        x += 1
        return (x * y).sum()

    x = tg.Tensor([1.0, 2.0])
    assert [step(x, x).item() for _ in range(4)] == [13.0, 25.0, 41.0, 61.0]
    x, y = tg.Tensor([1.0, 2.0]), tg.Tensor([1.0, 2.0])
    assert [step(x, y).item() for _ in range(4)] == [8.0, 11.0, 14.0, 17.0]
    assert step.replays == 4


def test_symbolic_sizes_replay_one_program_for_all_values(engine):
    n = tg.Variable("n", 1, 8)
    table = tg.arange(8, dtype="float32").realize()

    @jit
    def step(x, length):
        head = x[:length]
        return head.sum(), head * 2

    for value in (3, 5, 2, 8, 1):
        total, head = step(table, n.bind(value))
        assert total.item() == sum(range(value)) and head.tolist() == [2.0 * k for k in range(value)]
    assert step.replays == 3

    grow = jit(lambda x: x.sum())
    assert [grow(table[: n.bind(value)]).item() for value in (2, 3, 4, 8)] == [1.0, 3.0, 6.0, 28.0]
    assert grow.replays == 2


# ---- state -----------------------------------------------------------------------------------------------------


def test_state_written_in_place_goes_on_from_replay_to_replay():
    total, count = tg.zeros(2), tg.Tensor(0)

    @jit
    def step(x):
        running = total
        running += x
        count.assign(count + 1)
        return total / count

    means = [step(tg.Tensor([number, 1.0])).tolist() for number in range(6)]
    assert means == [[number / 2, 1.0] for number in range(6)]
    assert total.tolist() == [15.0, 6.0] and count.item() == 6 and step.replays == 4
    total.assign(tg.Tensor([70.0, 0.0]))  # from outside, between two replays
    assert step(tg.Tensor([0.0, 0.0])).tolist() == [10.0, 0.0] and step.replays == 5


def test_training_step_captured_equals_the_same_step_run_eagerly():
    def train(wrap) -> tuple[list[float], list[list[float]]]:
        tg.default_generator.manual_seed(3)
        w = tg.rand(3, 2).realize().requires_grad_()
        b = tg.zeros(2).requires_grad_()
        moments = [tg.zeros(3, 2), tg.zeros(2)]

        @wrap
        def step(x, y):
            for p in (w, b):
                p.grad = None
            noisy = x + tg.rand(4, 3) * 0.1
            loss = ((noisy @ w + b - y) ** 2).mean()
            loss.backward()
            with tg.no_grad():
                for p, moment in zip((w, b), moments, strict=True):
                    moment.assign(moment * 0.9 + p.grad)
                    p -= moment * 0.05
            return loss

        chance = random.Random(1)
        losses = []
        for _ in range(8):
            x = tg.Tensor([[chance.random() for _ in range(3)] for _ in range(4)])
            losses.append(step(x, x[:, :2] * 2 + 1).item())
        assert w.grad is not None and w.is_leaf
        return losses, [*w.tolist(), b.tolist(), w.grad.tolist()]

    captured = []

    def remember(function):
        captured.append(jit(function))
        return captured[0]

    eager, replayed = train(lambda function: function), train(remember)
    assert replayed[0] == pytest.approx(eager[0], rel=1e-6) and captured[0].replays == 5
    assert [value for row in replayed[1][:3] for value in row] == pytest.approx(
        [value for row in eager[1][:3] for value in row], rel=1e-6
    )


def test_gradients_that_accumulate_over_replays_are_those_of_eager_steps():
    def run(wrap) -> list[float]:
        w = tg.Tensor([1.0, 2.0], requires_grad=True)
        step = wrap(lambda x: (w * x).sum().backward())
        for number in range(6):
            step(tg.Tensor([1.0, float(number)]))
        found = w.grad.tolist()
        w.grad = None
        step(tg.Tensor([5.0, 5.0]))
        return found + w.grad.tolist()

    assert run(jit) == run(lambda function: function) == [6.0, 15.0, 5.0, 5.0]


def test_random_numbers_of_replays_are_those_of_eager_steps():
    def run(wrap) -> list[list[float]]:
        tg.default_generator.manual_seed(11)
        step = wrap(lambda: tg.rand(2) + tg.rand(2))
        return [step().tolist() for _ in range(6)]

    assert run(jit) == run(lambda function: function)


def test_cache_as_an_argument_is_written_in_place():
    n = tg.Variable("n", 1, 7)
    caches = [tg.zeros(8, 2).realize(), tg.zeros(8, 2).realize()]

    @jit
    def step(cache, x, position):
        cache[position : position + 1] = x
        return cache[: position + 1].sum()

    for cache in caches:
        sums = [step(cache, tg.full((1, 2), float(k)), n.bind(k)).item() for k in range(1, 6)]
        assert sums == [2.0 * sum(range(k + 1)) for k in range(1, 6)]
    assert caches[0].tolist() == caches[1].tolist() == [[float(k)] * 2 for k in (0, 1, 2, 3, 4, 5, 0, 0)]
    assert step.replays >= 6


def test_view_as_an_argument_that_is_written_shows_in_its_base():
    base = tg.zeros(3, 2)

    @jit
    def step(row):
        row += 1

    for number in range(6):
        step(base[number % 3])
    assert base.tolist() == [[2.0, 2.0]] * 3 and step.replays == 4


def test_two_states_that_start_as_one_value_part():
    w = tg.Tensor([1.0])
    average = w.clone()

    @jit
    def step():
        w.assign(w + 1)
        average.assign(average * 0.5 + w * 0.5)

    for _ in range(4):
        step()
    assert w.item() == 5.0 and average.item() == pytest.approx(4.0625)


def test_method_is_captured_for_each_instance():
    class Counter:
        def __init__(self, start: float):
            self.value = tg.Tensor([start])

        @jit
        def add(self, x):
            self.value += x
            return self.value

    one, two = Counter(0.0), Counter(10.0)
    for _ in range(4):
        assert one.add(tg.Tensor([1.0])) is one.value
        two.add(tg.Tensor([2.0]))
    assert one.value.item() == 4.0 and two.value.item() == 18.0 and Counter.add.replays == 4


def test_state_that_is_made_at_the_first_call_is_captured_at_the_next():
    class Momentum:
        buffer = None

    state = Momentum()

    @jit
    def step(x):
        if state.buffer is None:
            state.buffer = tg.zeros(1)
        state.buffer.assign(state.buffer * 0.5 + x)
        return state.buffer

    got = [step(tg.Tensor([1.0])).item() for _ in range(6)]
    assert got == [1.0, 1.5, 1.75, 1.875, 1.9375, 1.96875] and step.replays >= 2


def test_numbers_that_change_outside_are_seen():
    class Options:
        rate, calls = 1.0, 0

    options = Options()
    options.rate = 1.0

    @jit
    def step(x):
        return x * options.rate

    for rate in (1.0, 2.0, 3.0):
        options.rate = rate
        for _ in range(3):
            assert step(tg.Tensor([2.0])).item() == 2.0 * rate
    assert step.replays >= 3


def test_counter_that_does_not_matter_costs_one_capture_more():
    class Trainer:
        def __init__(self):
            self.calls = 0

        @jit
        def step(self, x):
            return x * 2

    trainer = Trainer()
    for _ in range(8):
        trainer.calls += 1
        assert trainer.step(tg.Tensor([1.0])).item() == 2.0
    assert Trainer.step.replays >= 5


def test_tensor_replaced_in_an_object_is_seen():
    class Model:
        pass

    model = Model()
    model.weight = tg.Tensor([2.0])
    step = jit(lambda x: x * model.weight)
    for _ in range(3):
        assert step(tg.Tensor([1.0])).item() == 2.0
    model.weight = tg.Tensor([5.0])
    assert [step(tg.Tensor([1.0])).item() for _ in range(3)] == [5.0] * 3


# ---- what is refused -------------------------------------------------------------------------------------------


def test_value_read_inside_raises_and_names_the_line():
    state = tg.zeros(1)

    def step(x):
        state.assign(state + 1)
        if x.sum().item() > 0:  # read here
            return x
        return -x

    with pytest.raises(JitError, match=line_of(step, "read here")):
        jit(step)(tg.ones(2))
    assert state.tolist() == [0.0]  # as it was
    with pytest.raises(JitError, match="a value is read"):
        jit(lambda x: print(x))(tg.ones(2))


def test_tensor_kept_by_a_side_effect_raises_and_names_the_line():
    class Holder:
        last = None

    holder = Holder()

    def step(x):
        holder.last = x * 2  # kept here
        return x

    held = jit(step)
    held(tg.ones(2))
    with pytest.raises(JitError, match=r"\.last: .* became"):
        held(tg.ones(2))

    kept = []

    def hidden(x, where=kept):
        where.append(x + 1)  # kept there
        return x

    held = jit(hidden)
    held(tg.ones(2))
    with pytest.raises(JitError, match=line_of(hidden, "kept there")):
        held(tg.ones(2))


def test_python_counter_inside_raises():
    class Adam:
        t = 0

    adam = Adam()
    adam.t = 0

    def step(x):
        adam.t += 1
        return x / adam.t

    held = jit(step)
    held(tg.ones(2))
    with pytest.raises(JitError, match=r"adam\.t: 1 became 2 within the step"):
        held(tg.ones(2))


def test_graph_that_is_another_each_time_raises_and_names_the_line():
    chance = random.Random(0)
    held = jit(lambda x: x * chance.random())  # other numbers here
    held(tg.ones(2))
    with pytest.raises(JitError, match="another one each time, here by const"):
        held(tg.ones(2))

    def data(x):
        return x + tg.Tensor([chance.random(), 1.0])  # other data here

    held = jit(data)
    held(tg.ones(2))
    with pytest.raises(JitError, match="other data each time.*" + line_of(data, "other data here")):
        held(tg.ones(2))


def test_array_as_an_argument_raises():
    numpy = pytest.importorskip("numpy")
    with pytest.raises(JitError, match="got a ndarray as an argument, want a tensor"):
        jit(lambda x: tg.Tensor(x) * 2)(numpy.ones(3))


def test_history_from_outside_raises():
    w = tg.Tensor([1.0], requires_grad=True)
    y = w * 2
    with pytest.raises(JitError, match="history from outside"):
        jit(lambda x: (y * x).sum())(tg.ones(1))


def test_two_values_of_one_variable_in_a_call_raise():
    n = tg.Variable("n", 1, 8)
    step = jit(lambda x, a, b: x[:a].sum() + x[:b].sum())
    with pytest.raises(JitError, match="variable 'n'"):
        step(tg.arange(8).realize(), n.bind(2), n.bind(3))


def test_step_that_does_nothing_is_replayed():
    step = jit(lambda x: None)
    assert [step(tg.ones(2)) for _ in range(4)] == [None] * 4 and step.replays == 2


# ---- elsewhere -------------------------------------------------------------------------------------------------


def test_step_within_a_step_is_part_of_it():
    inner = jit(lambda x: x + 1)
    outer = jit(lambda x: inner(x) * 2)
    assert [outer(tg.Tensor([1.0])).item() for _ in range(4)] == [4.0] * 4
    assert inner.replays == 0 and outer.replays == 2


def test_gradient_through_a_step_is_that_of_the_function():
    step = jit(lambda x: (x * x).sum())
    assert tg.grad(step)(tg.Tensor([1.0, 3.0])).tolist() == [2.0, 6.0]


def test_step_on_the_interpreter_gives_the_same_values():
    total = tg.zeros(1, device="REF")

    @jit
    def step(x):
        total.assign(total + x)
        return total * 2

    assert [step(tg.Tensor([1.0], device="REF")).item() for _ in range(4)] == [2.0, 4.0, 6.0, 8.0]
    assert isinstance(step, Jit) and step.replays == 0


def test_step_over_two_devices_is_replayed():
    step = jit(lambda x, y: (x.to("FAKE:1") @ y).to("FAKE") + x)
    for number in range(5):
        x, y = tg.full((2, 2), float(number)), tg.ones(2, 2, device="FAKE:1")
        assert step(x, y).tolist() == [[3.0 * number] * 2] * 2
    assert step.replays == 3


def test_threads_may_call_one_step_at_once():
    step, failures = jit(lambda x: x * 3), []

    def work(number: int) -> None:
        try:
            for k in range(6):
                value = float(10 * number + k)
                if step(tg.Tensor([value])).tolist() != [3 * value]:
                    failures.append(value)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and step.replays == 34


# ---- memory ----------------------------------------------------------------------------------------------------


def test_state_is_written_over_its_own_memory_and_nothing_else_sees_it(engine):
    state = tg.zeros(4).realize()

    @jit
    def step():
        state.assign(state + 1)

    for _ in range(3):
        step()
    memory, runtime = state.node.value.memory, engine._devices.runtime("FAKE")
    live = runtime.live
    for _ in range(3):
        step()
    assert state.node.value.memory is memory and runtime.live == live and state.tolist() == [6.0] * 4
    snapshot, pending, share = state.clone(), state * 10, state.detach().numpy()
    step()
    step()
    assert state.tolist() == [8.0] * 4
    assert snapshot.tolist() == [6.0] * 4 and pending.tolist() == [60.0] * 4 and share.tolist() == [6.0] * 4


def test_state_that_a_result_still_needs_is_not_overwritten_before(engine):
    state = tg.Tensor([1.0, 2.0])

    @jit
    def step(x):
        before = state * x
        state.assign(state.flip(0) + before.sum())
        return before, state.clone()

    eager = [1.0, 2.0]
    for number in range(6):
        before, after = step(tg.Tensor([float(number % 2), 1.0]))
        want = [eager[0] * (number % 2), eager[1]]
        eager = [eager[1] + sum(want), eager[0] + sum(want)]
        assert before.tolist() == want and after.tolist() == eager and state.tolist() == eager
    assert step.replays == 4
