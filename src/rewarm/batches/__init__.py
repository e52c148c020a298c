"""From views of token shards to the batch of a step."""
