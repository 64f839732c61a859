"""Mutated PDUs against a live target (fuzz_iscsi.py plays more of them)."""

import fuzz_iscsi


def test_no_mutated_pdus_crash_a_target_or_show_one_initiators_data_to_another():
    told = fuzz_iscsi.play(10_000, seed=5)
    assert told["pdus"] >= 10_000 and told["received"] > 50_000
