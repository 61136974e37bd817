"""Build the wheel, in which every package lies inside `mdsrec`, so that no name clashes with another product's.

Imports nothing of this project. Begin with backend.py, which pip calls; first_party.py changes a module's imports.
"""
