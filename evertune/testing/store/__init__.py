"""The contract of `evertune.store.Store`, as a pytest class. Whoever stores experiments elsewhere passes it.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Iterator[Store]: ...

The store may hold other experiments already: each test makes its own, in a namespace of its own.
"""

from __future__ import annotations

import pytest

from evertune.store import Store
from evertune.testing.store.experiments import ExperimentContract
from evertune.testing.store.launches import LaunchContract
from evertune.testing.store.reports import ReportContract
from evertune.testing.store.stopping import StoppingContract
from evertune.testing.store.suggestions import SuggestionContract
from evertune.testing.store.trials import TrialContract
from evertune.testing.store.values import ValueContract

__all__ = ["StoreContract"]


class StoreContract(
    ExperimentContract,
    SuggestionContract,
    TrialContract,
    ValueContract,
    ReportContract,
    LaunchContract,
    StoppingContract,
):
    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("give the class a fixture `store`")
