"""Many trainings, one question. Begin with definition.py (the study file), then life.py (what a study does)."""
