"""Makes the content of a dataset from source files: filters, splits, features; or from a synthetic catalogue.

May import data.formats and the modules of data that write a dataset. Open pipeline.py first, which has the steps in
their order. interactions.py filters and sorts, split.py splits, features.py and feature_files.py read features, and
synthetic.py generates a catalogue from the settings in synthetic_spec.py.
"""
