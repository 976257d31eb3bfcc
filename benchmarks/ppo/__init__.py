"""PPO beside TRL 1.12.0's PPOTrainer, its last, and the same formulas on the same tensors.

__main__.py  the command line
pairs.py     pairs of runs, table, benchmarks/results/ppo.json
case.py      what both train: model, prompts, settings, written into a folder
ours.py      one run of ours, in a process of its own
trl_child.py one run of TRL's, or its formulas, in the throwaway environment that environment.py makes
resident.py  memory of a process, read alike by both
formulas.py  our formulas and TRL's on the same tensors
scale.py     on a GPU: seconds per PPO step at the shapes of the paper's models
"""
