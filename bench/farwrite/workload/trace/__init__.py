"""Recorded I/O, ready to be replayed: when each write, read and flush was issued, where it went and how large it was.

`trace.find` turns a word into a file, `reader.Reading` a file into a stream of batches, `reader.read` into a whole `Trace`.
One file a format knows the bytes: `vscsi.py` (VMware), `msr.py`, `spc.py`, `iolog.py` (fio), `blkparse.py` and `csv.py` (our
own, see workloads/README.md), each with two verbs, `recognises` and `read`. `source.py` opens and unpacks, `columns.py` checks
and mends. Profiles replay with it; `summary.py` and `convert.py` are `farwrite trace`.
"""
