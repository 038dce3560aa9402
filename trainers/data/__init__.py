"""From pictures to batches: decoding, views, loading, cached features."""
