"""Hyperparameter sweeps with Optuna: less toxic, at the least shift in how the model uses its prompt.

space.py    the search space against the params that exist; a point as overrides of one variant
storage.py  where studies are kept, and what makes two sweeps the same study
sampler.py  TPE or NSGA-II, seeded per trial
trial.py    one point: the pipeline's own stages in a folder of the trial's own, on validation prompts only
early.py    the gate and the pruner, which may end a trial under training; probe.py: how toxic it is by then
study.py    trials of a study, until it has its number; liveness.py: whose trials are alive
workers.py  several processes that join a study by name; a killed one is replaced
ray_engine.py   the same trials as tasks of a Ray cluster
findings.py a study read once, and what it shows; results.py: reports/sweep/<study>; plots.py: its figures
apply.py    a trial's point into params.yaml
"""
