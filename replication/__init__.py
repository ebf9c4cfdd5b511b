"""One partition's bytes, and how the copies stay the same: batches, log storage, ISR, fetching."""
