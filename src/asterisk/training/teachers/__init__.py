"""What a teacher makes of a corpus: sentence vectors, and token states where it shows them."""
