"""One HTML page about items, users and channels of a run. Begin with collect.py (content), then page.py (form)."""
