"""Rows: one layout for Python, kernels and files, and no field that NumPy's own attributes would hide."""

import pickle

import pytest

from farwrite.base.jit import kernel
from farwrite.base.row import Row, i64, rows_of, u8, u16, u32


class Account(Row):
    number = i64("of the account")
    flags = u32("named like an attribute of NumPy's records")
    size = u16("so is this")
    kind = u8("and two of one byte")
    data = u8("each")


@kernel()
def deposit(accounts, index, count):
    account = accounts[index]
    account.number += count
    account.flags |= 4
    account.data = 9
    return accounts["size"].sum()


def test_kernels_and_python_mean_the_same_fields():
    accounts = rows_of(Account, 3)
    accounts[1].size = 5
    accounts["size"][2] = 7
    assert deposit(accounts, 1, 2) == 12
    assert (accounts[1].number, accounts[1].flags, accounts[1].size, accounts[1].data) == (2, 4, 5, 9)
    assert accounts.tobytes()[16:32] == bytes([2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 9])
    kept = accounts[1].copy()
    accounts[1].number = 3
    assert kept.number == 2 and isinstance(kept, Account)


def test_rows_go_from_process_to_process_with_their_names():
    sent = pickle.loads(pickle.dumps(rows_of(Account)))
    sent[0].flags = 1
    assert isinstance(sent[0], Account) and sent["flags"][0] == 1


def test_a_row_with_a_gap_is_refused():
    with pytest.raises(AssertionError, match="gap"):
        type("Gap", (Row,), {"first": u8("one byte"), "second": i64("then seven that mean nothing")})
