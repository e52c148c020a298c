"""From raw text to token shards and views; nothing here knows models or plans."""
