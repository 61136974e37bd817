"""Every knob with its type, limits, default and meaning; presets and studies as YAML; reading and overriding them.

May import contracts. Open schema.py first: the whole config is a class there, and each of its sections is a file here.
Open knobs.py for what a knob declares, loading.py for config files and `--set`, strict_yaml.py for the rules of YAML,
and systems/ for the knobs of a single system.
"""
