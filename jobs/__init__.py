"""The commands, each an outline: read the config, refuse what cannot work, do it, say what was written.

May import everything. Begin with train.py; cli.py holds what the commands share.
"""
