"""Does importance regularisation improve or accelerate detoxification? Arms of one kind of penalty, seed by seed.

Asked by Scalena et al. 2023 (arXiv 2309.00751), section 5. The arms differ in `sft.regularizer` alone:

    plain                    the quantity is measured, weight 0
    KIND:raise, KIND:lower   weight below and above 0
    KIND:placebo             as KIND:lower, on shuffled columns
"""
