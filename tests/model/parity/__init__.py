"""Compare systems with numbers that their authors' own code computed.

`fixture.py` reads the numbers, `comparison.py` compares, and `names.py` turns the authors' parameters into ours. To add
a system, write a test in `test_*.py` that builds the model and maps its parameters; test_next_item.py has examples.
"""
