"""How the wheel is built: every package lies below `mdsrec` there, so that no name meets another product's.

Imports nothing of the project. Begin with backend.py, which pip calls; first_party.py changes a module's imports.
"""
