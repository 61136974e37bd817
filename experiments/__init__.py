"""Questions asked of many runs or of one: studies (grids of trainings) and case pages (items and users of a run).

May import distributed and everything below it; jobs alone import it. Begin with study/life.py or case_page/collect.py.
"""
