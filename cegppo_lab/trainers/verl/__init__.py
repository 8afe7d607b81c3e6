"""The verl trainer: our algorithms, tasks and records around verl's own training loop."""
