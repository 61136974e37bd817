"""How often items occur together in sequences, by distance. Begin with pair_counts.py; pair_loops.py is compiled."""
