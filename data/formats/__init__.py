"""The readers of source files: formats are descriptions of files, which one engine reads in blocks of rows.

May import storage, configs, contracts and the modules of data for the layout of a dataset. Open source.py first: it
says what a reader offers. file_source.py is the engine, presets.py lists the formats, and table.py is the simplest of
them; amazon.py, mind.py, mmrec.py, movielens.py and recbole.py describe public datasets. layouts.py and the modules
named ..._layout.py read rows of one kind of file. unisrec.py reads UniSRec's folders, which are already split into
sequences.
"""
