"""Studies, which train and compare many variants, and case pages, which show items and users of one run.

May import distributed and every package that distributed may import; only jobs imports this one. Begin with
study/run_study.py or case_page/collect.py.
"""
