"""A soak: a sweep whose processes are killed again and again ends as the undisturbed one did."""
