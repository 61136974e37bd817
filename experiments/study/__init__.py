"""Studies: many trainings, compared by one command. Begin with definition.py (the study file), then run_study.py."""
