"""Growing data: a dataset from an earlier one and new interactions. Begin reading in `growth`.

The earlier dataset is called OLD in this package, as in the command's help.
"""
