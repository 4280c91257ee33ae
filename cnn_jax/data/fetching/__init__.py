"""Public sets from their homes: addresses and checksums, resumable transfers, unpacking."""
