"""The network: loading a checkpoint strictly, making a new one, and the loss."""
