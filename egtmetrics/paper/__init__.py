"""The paper's experiments, repeated: its Tables 1, 2 and 4 and its Figure 1, with the data, networks and settings.

``egtmetrics reproduce`` runs them. ``table1``, ``table2``, ``table4`` and ``figure1`` each hold one experiment, and
``table1_report``, ... its tables and figures. ``datasets`` and ``images`` read images, ``biographies`` texts;
``configurations`` holds the paper's settings, ``unet`` the networks of Karras et al. 2022, and ``checkpoints`` reads
their public weights. Import a module by its name: this package imports none of them, and most of them need PyTorch.
"""
