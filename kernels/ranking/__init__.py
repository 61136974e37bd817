"""Ranks, ties and best items from a tile of scores, in one pass over the tile.

May import the files of kernels/, but no other folder in it. rank_counts.py holds everything.
"""
