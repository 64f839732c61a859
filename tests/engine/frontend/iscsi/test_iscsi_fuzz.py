"""Mutated PDUs against a live target (fuzz_iscsi.py plays more of them)."""

import fuzz_iscsi
import pytest
from initiator import target_in_loop, target_in_memory


@pytest.mark.parametrize("made", [target_in_memory, target_in_loop])
def test_no_mutated_pdus_crash_a_target_or_show_one_initiators_data_to_another(made):
    told = fuzz_iscsi.play(10_000, seed=5, made=made)
    assert told["pdus"] >= 10_000 and told["received"] > 50_000
