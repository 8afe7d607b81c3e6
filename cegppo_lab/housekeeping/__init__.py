"""The store looked after: what is in it, whether it is whole, what may go, how it travels."""
