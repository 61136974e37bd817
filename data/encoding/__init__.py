"""Encodes texts and images of items into the vectors that `jobs/prepare_data.py --features NAME=FOLDER` reads.

May import data.formats and the modules of data that describe folders. Open encode.py first, which has the steps in
their order: item_table.py reads a table of items, parts.py divides it into parts, part_work.py encodes a part into a
file, ray_parts.py does the same on a cluster, and joining.py joins the parts into the finished folder, which
encoded_folder.py describes and reads. encoders.py chooses the encoder: text_models.py, two_towers.py, efficientnet.py
or tfidf.py. images.py opens images.
"""
