"""The stages of a build, each a pure function of files on disk.

Begin with cooccurrence.py; then come injection.py, neighbors.py and clusters.py, in the order of a build.
"""
