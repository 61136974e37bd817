"""The readers of source files, one file per format; all but UniSRec's return the same table of interactions.

May import storage, configs, contracts and the modules of data for the layout of a dataset. Open interaction_table.py
first: it describes the table. Then read table.py, which reads Parquet, CSV and JSON lines. recbole.py reads RecBole's
files, and unisrec.py reads UniSRec's folders, which are already split into sequences. columns.py, delimited.py,
json_lines.py and times.py read and check columns.
"""
