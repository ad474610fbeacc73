from __future__ import annotations

import pickle

from grover_dist.errors import UserError


def test_message_says_what_where_got_expected_and_what_to_do():
    error = UserError("the file is empty", where="a.fa", got="0 bytes", expected="FASTA", hint="check the download")
    assert str(error) == "the file is empty. Where: a.fa. Got: 0 bytes. Expected: FASTA. What to do: check the download."


def test_survives_the_way_back_from_a_worker_process():
    error = UserError("what", where=1, got=2, expected=3, hint="do")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and (again.where, again.hint) == (1, "do")
