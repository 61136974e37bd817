"""Every knob, typed and documented; presets and studies as YAML; reading, overriding and explaining them.

May import contracts. Begin with schema.py (the whole config) and knobs.py (what a knob says of itself); one file per
section, systems/ for what belongs to one system, loading.py for files and `--set`.
"""
