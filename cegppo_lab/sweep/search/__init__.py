"""Search: points that Optuna suggests from what the points before them measured."""
