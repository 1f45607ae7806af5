"""Amounts of memory and plans: what holds for all of them."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asterisk.apps.serve.limits import reserve, with_reserve
from asterisk.common.errors import BudgetError, UsageError
from asterisk.model.config import Dense, ModelConfig
from asterisk.runtimes.memory_budget import (
    BATCHES,
    COSTS,
    LENGTHS,
    MB,
    TEXT,
    LimitTooLow,
    Model,
    Planner,
    add_option,
    format_size,
    need,
    parse,
)

ORIGINAL = ModelConfig(
    hidden_size=512,
    intermediate_size=2_048,
    norm_first=True,
    embedding_norm=False,
    dense=(Dense(256),),
)
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@settings(deadline=None)
@given(st.integers(1, 1 << 20), st.sampled_from(sorted(UNITS)))
def test_an_amount_is_read_as_systemd_reads_it(number, unit):
    assert parse(f"{number}{unit}") == number * UNITS[unit]


@settings(deadline=None)
@given(st.integers(1, 1 << 40))
def test_a_size_reads_back_as_enough(size):
    assert size <= parse(format_size(size)) < size + MB


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=8) | st.sampled_from(["0", "0M", "-1M", "1.5G", "128MB", "128 M", "1T"]))
def test_anything_else_is_refused_in_one_line(text):
    digits = text[:-1] if text[-1:] in {"K", "M", "G"} else text
    if digits.isascii() and digits.isdigit() and int(digits):
        assert parse(text) > 0
        return
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["0", "128MB", "-5", "1e9", "", "٣M", "9" * 17, "9999999999G"])
def test_a_command_refuses_an_amount_that_cannot_be_meant(text, capsys):
    parser = argparse.ArgumentParser()
    add_option(parser)
    assert parser.parse_args(["--max-memory", "128M"]).max_memory == 128 << 20
    assert parser.parse_args([]).max_memory is None
    with pytest.raises(SystemExit):
        parser.parse_args([f"--max-memory={text}"])
    assert "is no amount of memory" in capsys.readouterr().err


CONFIGS = st.sampled_from(
    [
        ModelConfig(),
        ORIGINAL,
        ModelConfig(hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1_536),
        ModelConfig(max_positions=64),
        ModelConfig(max_positions=2_048, num_heads=8),
    ]
)
PLANNERS = st.builds(
    Planner,
    st.just("a"),
    st.builds(
        Model,
        st.sampled_from(sorted(COSTS)),
        st.sampled_from(["int8", "q8_0", "fp32", "int8-emb4"]),
        CONFIGS,
        st.integers(1 << 20, 300 << 20),
    ),
    st.integers(1, 32),
    st.integers(1, 2 << 30),
    st.booleans(),
    st.integers(5 << 20, 500 << 20),
)


def planned(planner):
    try:
        return planner.plan()
    except BudgetError:
        return None


@settings(deadline=None, max_examples=50)
@given(PLANNERS)
def test_a_plan_is_within_its_limit_and_what_was_asked_for(planner):
    budget = planned(planner)
    if budget is None:
        return
    assert planner.base < budget.need <= planner.limit
    assert 1 <= budget.threads <= planner.asked
    assert budget.longest in {*LENGTHS, budget.most}
    assert budget.longest <= budget.most == planner.model.config.max_positions
    assert budget.batch in BATCHES
    assert budget.texts + 14 * budget.longest_line <= budget.batch * TEXT
    lessened = budget.threads < planner.asked or budget.longest < budget.most
    assert bool(budget.message) == lessened


@settings(deadline=None, max_examples=50)
@given(PLANNERS, st.integers(0, 1 << 30))
def test_more_memory_never_gives_fewer_threads_or_shorter_texts(planner, more):
    less = planned(planner)
    richer = planned(replace(planner, limit=planner.limit + more))
    if less is not None:
        assert richer is not None
        assert richer.threads >= less.threads
        assert richer.longest >= less.longest


@settings(deadline=None, max_examples=50)
@given(PLANNERS)
def test_what_a_refusal_names_is_enough(planner):
    try:
        replace(planner, limit=1).plan()
    except BudgetError as failure:
        amount = str(failure).split("needs about ")[1].split()[0]
    budget = replace(planner, limit=parse(amount)).plan()
    assert budget.threads == 1
    with pytest.raises(BudgetError, match="is not enough"):
        replace(planner, limit=parse(amount) - 2 * MB).plan()


@settings(deadline=None, max_examples=50)
@given(PLANNERS)
def test_what_a_server_is_told_to_ask_for_is_enough(planner):
    """Its requests' part comes on top, of the total."""
    with pytest.raises(LimitTooLow) as refused:
        replace(planner, limit=1).plan()
    total = parse(format_size(with_reserve(refused.value.least)))
    assert replace(planner, limit=total - reserve(total)).plan().threads == 1
    less = total - 4 * MB
    with pytest.raises(LimitTooLow):
        replace(planner, limit=less - reserve(less)).plan()
    line = str(refused.value.with_reserved(reserve(total), total, 50 * MB, False))
    assert f"needs about {total // MB}M for texts" in line
    assert f"and {format_size(reserve(total))} for requests; a memory limit of 50M is not" in line


@settings(deadline=None, max_examples=50)
@given(PLANNERS, st.integers(10 * MB, 100 * MB))
def test_a_plan_that_did_not_hold_is_followed_by_a_smaller_one(planner, excess):
    sizes = []
    while (budget := planned(planner)) is not None:
        sizes.append((budget.threads, budget.longest, budget.batch))
        planner.surplus += excess
        assert len(sizes) < 2_000
    assert sizes == sorted(sizes, reverse=True) or len(sizes) < 2


def test_what_an_opened_runtime_takes_corrects_the_estimate(tmp_path, monkeypatch):
    model = Model("tflite", "int8", ModelConfig(), 16 << 20)
    planner = Planner("a", model, 4, 100 << 20, False, 30 << 20)
    before = planner.plan()
    monkeypatch.setattr("asterisk.runtimes.memory_budget.resident", lambda folder: 90 << 20)
    assert not planner.holds(before, tmp_path)
    monkeypatch.setattr("asterisk.runtimes.memory_budget.resident", lambda folder: 40 << 20)
    after = planner.plan()
    assert (after.threads, after.longest) < (before.threads, before.longest)
    assert planner.holds(after, tmp_path)


@pytest.mark.parametrize("format", sorted(COSTS))
def test_an_estimate_grows_with_all_it_depends_on(format):
    model = Model(format, "int8", ModelConfig(), 16 << 20)
    base = need(model, 2, 256)
    assert need(model, 3, 256) > base
    assert need(model, 2, 512) > base
    assert need(replace(model, files=32 << 20), 2, 512) > need(model, 2, 512)
    if format != "gguf":  # which shares its weights
        assert need(replace(model, recipe="fp32"), 2, 256) > base
    if format == "gguf":  # logits of one session at a time, 4 bytes a token of the vocabulary
        assert need(model, 1, 512) - need(model, 1, 256) > 256 * 4 * 50_259
