"""One class of knobs per system, and the registry of systems. May import configs' sections; begin with registry.py."""
