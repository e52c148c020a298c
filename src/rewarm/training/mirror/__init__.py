"""Copies of a run's verified checkpoints behind a URL, and the way back from there.

`remote.py` is the other side, `contents.py` what lies there; `uploader.py` copies beside the
training, `restore.py` brings back; `launch.py` is what a launch sees of all that.
"""
