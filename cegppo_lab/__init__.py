"""cegppo-lab: sweeps over policy-optimisation algorithms, answered with intervals."""

__version__ = "0.1.0"
