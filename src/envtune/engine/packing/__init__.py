"""Sample packing that can be resumed: which documents make a row, and in which order."""
