"""Artifacts that an attacker changed and hashed anew: refused, or opened without harm."""

from __future__ import annotations

import pytest

from hardening import campaign
from hardening.conftest import RECIPES

every = pytest.mark.parametrize("name", sorted(RECIPES))


def check(outcome, count):
    assert not outcome.failures, "\n".join(outcome.failures[:20])
    assert outcome.counts["mutants"] == count
    # Both happen often: else nothing was mutated, or nothing was ever opened.
    assert outcome.counts["refused"] > count / 5
    assert outcome.counts["opened"] > count / 20
    # Golden texts use a few hundred of 50,259 rows: a changed row of another token is what the
    # manifest's hash is for. See docs/hardening.md.
    assert len(outcome.missed) <= count / 20, "\n".join(outcome.missed)
    assert outcome.most_memory < 1_000


@every
def test_sixty_mutants(small_artifact, name):
    check(campaign.artifacts(small_artifact(name), 1, 60), 60)


@every
@pytest.mark.campaign
@pytest.mark.timeout(3_000)
def test_a_thousand_mutants(small_artifact, name):
    check(campaign.artifacts(small_artifact(name), 2, 1_000), 1_000)
