"""An artifact behind OpenAI's embeddings API; `asterisk-serve` starts it."""
