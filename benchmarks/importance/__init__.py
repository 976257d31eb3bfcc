"""Does importance regularisation improve or accelerate detoxification? Arms of one kind of penalty, seed by seed.

Asked by Scalena et al. 2023 (arXiv 2309.00751), section 5. The arms differ in `regularizer` of `sft` or `ppo` alone:

    plain      the quantity is measured, weight 0
    lower      weight above 0
    raise      weight below 0
    placebo    as lower, on shuffled columns

__main__.py  the command line
arms.py      the arms of one kind and weight
bench.py     what every training has in common: base model, validation prompts, the looks at them
sft.py       one fine-tuning of one arm
ppo.py       one PPO training of one arm
records.py   benchmarks/results/importance.json: the trainings of each method, and which are still to do
effects.py   from looks to seed-paired differences
tables.py    the tables of docs/importance.md
"""
