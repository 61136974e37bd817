"""Makes the content of a dataset from source files: filters, splits, features; or from a synthetic catalogue.

May import data.formats and the modules of data that write a dataset. Open pipeline.py first, which has the steps in
their order. engine/ filters, numbers, sorts and splits interactions by the rules in split.py, and growth/ adds new
interactions to a dataset. features.py and feature_files.py read features, described_items.py reads titles, and
synthetic.py generates a catalogue from the settings in synthetic_spec.py.
"""
