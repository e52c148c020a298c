"""The torch-free arithmetic of the data order: deal a blend, permute an epoch, find a position."""
