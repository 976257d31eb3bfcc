"""A small pipeline that is killed, filled up, locked out: it ends with the bytes of an uninterrupted run.

__main__.py   the command, its table and its figures
pipeline.py   the stages on a small scale, each in a process of its own that can be killed
kills.py      SIGKILL at random moments of every stage
cases.py      a full disk, a read-only folder, a clock that is set, a locked store, a server or a scorer that is gone
service.py    the scoring service that goes away
dvc.py        SIGKILL of `dvc repro` and all its processes
"""
