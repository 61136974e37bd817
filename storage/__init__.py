"""Write files and folders atomically, fingerprint them, and copy them from and to object storage.

May import contracts, but neither PyTorch nor Ray. Files, and what to open them for:

    durable_files.py   open first: how this project writes every file and folder
    array_file.py      `.npy` files
    parquet_files.py   whether a Parquet file is whole
    plain_json.py      JSON without NaN and infinity
    fingerprints.py    SHA-256 of files, folders and plain values
    manifest.py        reading and checking a folder's manifest.json
    object_cache.py    datasets and graphs at a URI: one copy per node, and publication
    object_store.py    one folder in object storage: read, write, list, delete
    uris.py            which URIs are accepted
    paths.py           `~` in paths
"""
