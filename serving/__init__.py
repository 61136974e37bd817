"""A trained run at work: recommendations and vectors for any history, in one process without Ray.

May import distributed and every package that distributed may import; only jobs and mdsrec import this one. Begin with
predictor.py, which `mdsrec.load` returns.
"""
