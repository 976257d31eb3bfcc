"""`detoxlens doctor`: checks of versions, results, runs and machine against one another. Offline, seconds, read-only.

report.py     all checks in order, each guarded; as text and as JSON
check.py      one line of the answer
results.py    dvc.lock's outputs: in the workspace, in DVC's cache; what killed stages left
tables.py     toxic words against the texts that they are of
locks.py      what a killed DVC or git refuses to work with
remote.py     the same outputs on DVC's default remote, asked while the other checks run
tracking.py   MLflow's store, its runs against dvc.lock and back, the registry, the sweeps' studies
machine.py    installed versions, disk, cores, accelerator
models.py     what each declared model needs, against what there is
"""
