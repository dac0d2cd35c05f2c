"""The engine's calls one by one: positions, what is kept and given, pauses, states, other inputs, faults."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import DDIMScheduler

from hgc_video.cache.engine import Engine, attach
from hgc_video.cache.store import Lasting, Value
from hgc_video.errors import CacheStateError
from hgc_video.plan.presets import resolve
from tests.cache.engine_parts import cut, full, graph, handed, models, put, reuse, wrapped
from tests.tiny_models import (
    FRAMES,
    TOKENS,
    Clip,
    graph_of,
    motion_unet,
    multi_controlnet,
)

CPU = torch.device("cpu")


def elsewhere(call, *args):
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(call, *args)
        return done.exception() or done.result()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Before a run


def test_a_new_engine_has_done_nothing():
    plan = reuse()
    engine = Engine(plan, graph())
    assert engine.graph is graph() and engine.schedule is plan
    assert (engine.on_change, engine.scheduler, engine.guidance_scale) == (None, None, None)
    assert (engine.peak_nbytes, engine.nbytes, engine.kept(cut())) == (0, 0, ())
    assert engine.log.executed == [] and len(engine.store.values((0, 0, cut()))) == 0
    engine.disable()
    engine.pause()


def test_what_attach_is_given_is_the_engines(clip):
    plan, scheduler = full(), DDIMScheduler()
    with put(plan, scheduler=scheduler, guidance_scale=2.5) as engine:
        assert engine.schedule is plan and engine.graph is graph()
        assert engine.scheduler is scheduler and engine.guidance_scale == 2.5
        assert wrapped(clip.unet) and wrapped(clip.controlnet)
        engine.at(0)
        assert engine._observers.guidance_scale == 2.5
    with attach(full(), graph=graph(), unet=clip.unet) as engine:
        assert wrapped(clip.unet) and not wrapped(clip.controlnet)
        assert (engine.scheduler, engine.guidance_scale) == (None, None)


def test_a_model_that_carries_another_cache_is_refused_and_none_is_wrapped(clip):
    with put(full()):
        engine = Engine(full(), graph())
        with pytest.raises(CacheStateError, match="ControlNetModel already has a cache"):
            engine.enable(motion_unet(), clip.controlnet)
        assert not wrapped(engine._models[0])
        with pytest.raises(CacheStateError, match="UNetMotionModel already has a cache"):
            engine.enable(clip.unet)
        assert wrapped(clip.unet), "the other one's stays"


# Positions


@pytest.mark.parametrize("step", [-1, 2, 3])
def test_a_step_that_the_plan_has_not_is_refused(step):
    engine = Engine(full(), graph())
    engine.at(0)
    engine.at(1)
    with pytest.raises(CacheStateError) as told:
        engine.at(step)
    assert (
        str(told.value) == f"step {step} is beyond the schedule's 2 steps; make one of that length"
    )


def test_models_that_run_before_a_position_are_refused_with_what_to_do(clip):
    said = (
        "the engine does not know the step; call at(step_index=...) before the models, or run the models "
        "through the pipeline whose cache this is"
    )
    with put(full()) as engine:
        with pytest.raises(CacheStateError) as told:
            clip.step(900)
        assert str(told.value) == said
        with pytest.raises(CacheStateError) as told:
            engine.give(cut(), Value(torch.zeros(1), 1, 1))
        assert str(told.value) == said


def test_a_model_is_called_once_a_step(clip):
    with put(full()) as engine:
        engine.at(0)
        clip.step(900)
        with pytest.raises(CacheStateError) as told:
            clip.step(900)
        assert str(told.value) == (
            "controlnet was called twice at step 0: a cache follows loops that call each model once a "
            "step; disable it for this one"
        )
        engine.at(1)
        clip.step(700)
        with pytest.raises(
            CacheStateError, match="unet was called twice at step 1: a cache follows"
        ):
            clip.unet(clip.latents, 700, encoder_hidden_states=clip.text)


def test_models_are_one_threads_within_a_step(clip):
    with put(full()) as engine:
        engine.at(0)
        error = elsewhere(clip.step, 900)
        assert isinstance(error, CacheStateError) and str(error) == (
            "controlnet is at work in another thread, under a cache; give each thread models of its own, "
            "or wait until that run is done"
        )
        clip.step(900)


def test_the_first_window_of_the_first_step_begins_a_run(clip):
    with put(reuse()) as engine:
        for window in (0, 7):  # the second one is no beginning
            engine.at(0, window)
            clip.step(900)
        assert len(engine.log.executed) == 1 and engine.nbytes > 0
        for window in (0, 7):
            engine.at(1, window)
            assert len(engine.kept(cut())) == 1
        peak = engine.peak_nbytes
        engine.only_windows([9, 7], 7)
        engine.at(0, 9)
        assert engine.peak_nbytes == peak and len(engine.log.executed) == 1
        engine.at(0, 7)  # the first one of these windows
        assert (engine.peak_nbytes, engine.nbytes, engine.log.executed) == (0, 0, [])


def test_windows_that_are_left_are_forgotten_but_for_their_hints(clip):
    hint = "controlnet.controlnet_cond_embedding"
    assert graph().names("hint") == (hint,)
    with put(reuse(steps=3)) as engine:
        for window in (0, 1):
            engine.at(0, window)
            clip.step(900)
        engine.only_windows({1}, 1)
        left = {}
        for window in (0, 1):
            engine.at(1, window)
            left[window] = [len(engine.kept(name)) for name in (cut(), hint)]
        assert left[0][0] == 0 and left[1][0] == 1
        assert left[0][1] == left[1][1] == len(engine._prepared._keep[0].keys() & {hint})


# What is kept


def test_what_is_kept_can_be_read_and_replaced(clip):
    with put(reuse()) as engine:
        engine.at(0)
        assert engine.kept(cut()) == ()
        clip.step(900)
        engine.at(1)
        ((tensor, branches, frames),) = engine.kept(cut())
        assert (branches, frames) == (2, FRAMES) and len(tensor) == 2 * FRAMES
        stock = clip.step(700)
        engine.at(0)
        clip.step(900)
        engine.at(1)
        engine.give(cut(), Value(tensor + 1, 2, FRAMES))
        assert torch.equal(engine.kept(cut())[0].tensor, tensor + 1)
        assert not torch.equal(clip.step(700), stock)
    assert engine.kept(cut()) == () and engine.nbytes == 0


def test_bytes_are_the_stores_and_those_of_projected_text(clip):
    with put(reuse()) as engine:
        engine.at(0)
        clip.step(900)
        assert engine.nbytes == engine.store.nbytes + engine._wiring.nbytes
        assert engine._wiring.nbytes > 0 and engine.store.nbytes > 0
        held = engine.nbytes
        assert engine.peak_nbytes == 0, "of the step's beginning"
        engine.at(1)
        clip.step(700)
        assert engine.peak_nbytes == held and engine.store.nbytes == 0
    assert engine.peak_nbytes == held and engine.log.executed, "can be read afterwards"


@pytest.mark.parametrize(
    ("options", "windows", "away"),
    [({}, 3, False), ({"spill": True}, 3, True), ({"spill": True}, 2, False),
     ({"spill": True, "there": 1}, 2, True), ({"spill": False, "there": 1}, 3, False)],
)  # fmt: skip
def test_idle_windows_are_sent_away_where_it_is_asked_for(clip, options, windows, away):
    engine = Engine(reuse(), graph(), **options)
    engine.enable(clip.unet, clip.controlnet)
    outputs = []
    for step, t in enumerate((900, 700)):
        engine.only_windows(range(windows), 0)
        for window in range(windows):
            engine.at(step, window)
            outputs.append(clip.step(t))
    assert (engine.store.host.peak > 0) == (engine.store.to_device > 0) == away
    assert all(torch.equal(out, outputs[windows]) for out in outputs[windows:])
    engine.disable()


def test_attach_has_idle_windows_sent_away(clip):
    for spill in (False, True):
        with put(reuse(), spill=spill) as engine:
            engine.only_windows(range(3), 0)
            for window in range(3):
                engine.at(0, window)
                clip.step(900)
            assert (engine.store.host.peak > 0) == spill


# Pauses and other plans


def test_between_pause_and_resume_models_are_as_they_were(clip):
    stock = clip.run()
    with put(reuse()) as engine:
        engine.pause()  # before there was a step
        engine.resume()
        engine.at(0)
        first = clip.step(900)
        engine.pause()
        assert not wrapped(clip.unet) and not wrapped(clip.controlnet)
        assert torch.equal(clip.step(700), stock[1])
        assert engine._step.calls == {}
        engine.resume()
        engine.at(1)
        second = clip.step(700)
        assert wrapped(clip.unet) and not torch.equal(second, stock[1])
        assert same((first, second), clip.run(engine))


def test_models_whose_modules_were_replaced_are_wrapped_anew(clip):
    unet = motion_unet()
    clip.unet = unet
    with attach(reuse(), graph=graph(), unet=unet, controlnet=clip.controlnet) as engine:
        ours = clip.run(engine)
        engine.pause()
        own = unet.conv_in.forward
        unet.conv_in.forward = lambda x: own(x)
        engine.resume()
        assert wrapped(clip.controlnet)
        assert same(clip.run(engine), ours)
    assert "forward" in vars(unet.conv_in), "theirs stays"


def test_another_plan_is_carried_out_from_the_next_run_on(clip):
    with put(reuse()) as engine:
        clip.run(engine)
        log, other = engine.log, full(1)
        engine.take(other)
        assert engine.schedule is other and engine.log is not log and engine.log.executed == []
        with pytest.raises(CacheStateError, match="does not know the step"):
            clip.step(900)
        engine.at(0)
        clip.step(900)
        assert len(engine.log.executed) == 1 and len(log.executed) == 2
        with pytest.raises(CacheStateError, match="beyond the schedule's 1 steps"):
            engine.at(1)


# States


@pytest.mark.parametrize(
    "policy",
    [
        "hgc:interval=3,cut=1,gate=0.6,slope=0.5",
        "easycache:threshold=9,warm_up=2",
        "spectrum:warm_up=2,flex=0,w=0.5",
    ],
)
def test_a_run_goes_on_from_a_state_in_another_engine(clip, policy):
    clip = Clip(*models())
    plan = resolve(policy).schedule(graph(), 5)
    with put(plan) as engine:
        outputs, states = [], None
        for i, t in enumerate(clip.timesteps):
            if i == 3:
                states = engine.state()
            engine.at(i)
            outputs.append(clip.step(t))
        told = engine.log.record(), engine.log.executed, engine.peak_nbytes
    assert isinstance(states["store"], Lasting) and isinstance(states["wiring"], Lasting)
    # fmt: off
    assert states.keys() == {
        "store", "prediction", "wiring", "log", "prepared", "observers", "overflow", "peak_nbytes"
    }
    # fmt: on
    with put(plan) as engine:
        engine.restore(states, CPU)
        for i, t in enumerate(clip.timesteps[3:], 3):
            engine.at(i)
            assert torch.equal(clip.step(t), outputs[i])
        assert (engine.log.record(), engine.log.executed, engine.peak_nbytes) == told


# Other inputs


def test_the_same_inputs_change_nothing(clip):
    with put(reuse()) as engine:
        engine.on_change = lambda tokens: pytest.fail("called")
        clip.run(engine)
        clip.text = clip.text.clone()
        engine.at(0)  # a new run may have any
        clip.step(900)


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS + 2])
def test_another_prompt_without_a_plan_for_the_rest_is_run_as_it_is_without_us(clip, tokens):
    other = torch.randn(2 * FRAMES, tokens, clip.text.shape[-1])
    asked = []
    with put(reuse()) as engine:

        def stop(tokens):
            asked.append(tokens)
            engine.disable()

        engine.on_change = stop
        engine.at(0)
        clip.step(900)
        engine.at(1)
        clip.text = other
        out = clip.step(700)
    assert torch.equal(out, clip.step(700))
    assert asked == [tokens] and len(engine.log.executed) == 1


def test_the_rest_of_a_run_may_be_carried_out_by_another_plan_of_the_engine(clip):
    text = clip.text.flip(1)
    with put(reuse()) as engine:

        def begin_anew(tokens):
            assert tokens == TOKENS
            engine.take(full(1))
            engine.at(0)
            return engine

        engine.on_change = begin_anew
        engine.at(0)
        clip.step(900)
        engine.at(1)
        clip.text = text
        out = clip.step(700)
        assert len(engine.log.executed) == 1
        executed = engine.log.macs_by_part()
    torch.testing.assert_close(out, clip.step(700), rtol=1e-5, atol=1e-5)
    assert sum(executed.values()) > 0


@pytest.mark.parametrize("last", [False, True])
def test_the_rest_of_a_run_may_be_another_engines(clip, last):
    """From the ControlNet on, or, where the UNet alone gets another prompt, from that."""
    first, second = Engine(reuse(), graph()), Engine(full(1), graph())

    def begin_anew(tokens):
        first.disable()
        second.enable(clip.unet, clip.controlnet)
        second.at(0)
        return second

    first.on_change = begin_anew
    first.enable(clip.unet, clip.controlnet)
    first.at(0)
    clip.step(900)
    first.at(1)
    text, model = clip.text.flip(1), clip.unet if last else clip.controlnet
    hook = handed(model, encoder_hidden_states=text)
    out = clip.step(700)
    (executed,) = second.log.executed
    second.disable()
    torch.testing.assert_close(out, clip.step(700), rtol=1e-5, atol=1e-5)
    with put(full(1)) as engine:
        engine.at(0)
        clip.step(700)
        (plain,) = engine.log.executed
    hook.remove()
    assert executed["unet"] == plain["unet"] > 0
    assert executed["controlnet"] >= plain["controlnet"] > 0
    assert (executed["controlnet"] > plain["controlnet"]) == last, "they ran in vain before"


@pytest.mark.parametrize("again", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_what_changes_after_a_run_was_begun_anew_is_seen(clip, last, again):
    """The inputs that began it are those that the next ones are compared with."""
    other, asked = clip.text.flip(1), []
    model = clip.unet if last else clip.controlnet
    with put(full(3)) as engine:

        def begin_anew(tokens):
            asked.append(engine._step.index)
            engine.take(full(3))
            engine.at(0)
            return engine

        engine.on_change = begin_anew
        engine.at(0)
        clip.step(900)
        steps = [(1, other, 1), (again, clip.text, 2), (1, clip.text, 2)]
        if again == 2:
            steps.insert(1, (1, other, 1))
        for index, text, times in steps:
            engine.at(index)
            hook = handed(model, encoder_hidden_states=text)
            out = clip.step(700)
            assert len(asked) == times, index
            hook.remove()
    torch.testing.assert_close(out, clip.step(700), rtol=1e-5, atol=1e-5)


def test_what_the_second_controlnet_alone_gets_anew_is_seen_by_the_unet(clip):
    """The first one has run by the plan before, and runs once more."""
    two = Clip(clip.unet, multi_controlnet())
    plan, asked = reuse(), []
    with attach(plan, graph=graph_of(two), unet=two.unet, controlnet=two.controlnet) as engine:

        def begin_anew(tokens):
            asked.append(list(engine._step.calls))
            engine.take(full(1))
            engine.at(0)
            return engine

        engine.on_change = begin_anew
        engine.at(0)
        two.step(900)
        engine.at(1)
        second = two.controlnet.nets[1]
        hook = handed(second, controlnet_cond=two.hint)
        out = two.step(700)
        assert asked == [["controlnet.nets.0", "controlnet.nets.1"]]
    stock = two.step(700)
    hook.remove()
    torch.testing.assert_close(out, stock, rtol=1e-5, atol=1e-5)


def test_a_prompt_that_the_unet_alone_gets_has_the_controlnets_run_once_more(clip):
    """They had run by a plan that left out what was not read, and their MACs are told as well."""
    other, plan = clip.text.flip(1), reuse()

    def step(t, text):
        sample = clip.latents.repeat(2, 1, 1, 1, 1)
        flat = sample.transpose(1, 2).flatten(0, 1)
        with torch.no_grad():
            down, mid = clip.controlnet(
                flat,
                t,
                encoder_hidden_states=clip.text,
                controlnet_cond=clip.hint,
                return_dict=False,
            )
            return clip.unet(
                sample, t, encoder_hidden_states=text, down_block_additional_residuals=down,
                mid_block_additional_residual=mid, return_dict=False,
            )[0]  # fmt: skip

    stock, took = step(700, other), []
    for plain in (plan, full(1)):
        with put(plain) as engine:
            for index in range(len(plain)):
                engine.at(index)
                step(900 - 200 * index, clip.text)
            took.append(engine.log.executed[-1]["controlnet"])
    for anew in (True, False):
        with put(plan) as engine:

            def begin_anew(tokens, engine=engine, anew=anew):
                if not anew:
                    engine.disable()
                    return None
                engine.take(full(1))
                engine.at(0)
                return engine

            engine.on_change = begin_anew
            engine.at(0)
            step(900, clip.text)
            engine.at(1)
            out = step(700, other)
            if anew:
                (macs,) = engine.log.executed
                assert macs["controlnet"] == sum(took) and took[0] < 0.5 * took[1]
                assert engine.log.controlnet_branches == 2 and not engine._step.guess_mode
        torch.testing.assert_close(out, stock, rtol=1e-5, atol=1e-5)
