"""Files and folders: written whole or not at all, named by their content, kept on a disk or in object storage.

May import contracts; knows neither PyTorch nor Ray. Begin with durable_files.py (the one way to write) and
object_storage.py (URIs, and one copy per node).
"""
