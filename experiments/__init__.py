"""Studies, which train many variants, paired comparisons of runs, and case pages, which show items and users of a run.

May import distributed and every package that distributed may import; only jobs imports this one. Begin with
study/run_study.py, comparison/paired_runs.py or case_page/collect.py.
"""
