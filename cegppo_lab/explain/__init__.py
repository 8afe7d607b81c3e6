"""What an algorithm does, before any run: its weight F, and the entropy drift that is its own."""
