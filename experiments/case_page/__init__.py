"""An HTML page that shows items, users and channels of a run. Begin with collect.py (content), then page.py (HTML)."""
