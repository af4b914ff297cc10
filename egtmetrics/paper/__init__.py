"""The paper's experiments, repeated: its Tables 1 to 4 and its Figures 1 and 2, with their data, networks and settings.

``egtmetrics reproduce`` runs them. The modules:

    ================== ============================================================================================
    ``table1``         five ways to train a diffusion model, on digits, emoji or FFHQ; ``table1_report`` its tables
    ``table2``         four ways to fine-tune a language model, on biographies; ``table2_report``
    ``table3``         correlations over runs of ``table1`` and ``table2``
    ``table4``         samples of a model, or real images, degraded in two ways; ``table4_report``
    ``strategies``     beyond the paper: all strategies and specialists against plain training; ``strategies_report``
    ``figure1``        one global divergence, unequal groups
    ``figure2``        precision against recall of every group
    ``datasets``       images with groups
    ``unet``           the networks of Karras et al. 2022; ``checkpoints`` reads their public weights
    ``biographies``    texts with groups; ``prompts`` the paper's prompts
    ``causal_lm``      loading language models and adapters; ``generation`` samples texts from them
    ================== ============================================================================================

Import a module by its name: this package imports none of them. Most need PyTorch; ``figure1`` and the reports do not.
"""
