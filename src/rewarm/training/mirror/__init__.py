"""Copies of a run's verified checkpoints behind a URL, and the way back from there.

`remote.py` is the other side, `layout.py` says what lies there, `contents.py` moves it;
`uploader.py` copies beside the training, `restore.py` brings back; `launch.py` is what a launch
sees of all that.
"""
