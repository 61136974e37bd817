"""Studies of many variants, paired comparisons of runs, case pages of a run, and inspections of a dataset.

May import distributed and every package that distributed may import; only jobs imports this one. Begin with
study/run_study.py, comparison/paired_runs.py, case_page/collect.py or inspection/inspect.py.
"""
