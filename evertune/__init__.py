"""evertune: hyperparameter tuning and architecture search that cannot be lost."""

__version__ = "0.1.0"
