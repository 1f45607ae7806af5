"""What people use embeddings for: search, deduplication, classification, a server."""
