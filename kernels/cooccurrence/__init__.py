"""Count how often items occur together in sequences, by their distance.

May import the files of kernels/, but no other folder in it. Open pair_counts.py first: it holds the functions that
others call. pair_loops.py holds the compiled loops that they use.
"""
