"""Importance regularisation: a penalty on how a model uses its prompt, added to the loss of `sft` and of `ppo`.

loss = loss of the method + weight * quantity        every quantity lies in 0..1; a weight below 0 raises it

    attention_entropy      of the attention of response rows over the user's tokens   (Attanasio et al. 2022)
    attribution_entropy    of the attribution over the user's tokens, at random response positions
    toxic_share            share of that attribution that lies on the user's toxic words

Asked by the paper that this study implements (Scalena et al. 2023, section 5): can importance regularisation "improve
and accelerate detoxification"?
"""
