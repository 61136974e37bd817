"""What ranking reads of a tile of scores in one pass: ranks, ties and the best. Begin with rank_counts.py."""
