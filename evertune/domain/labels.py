"""Labels of trials that mean something beyond the algorithm that gives them. All values are text.

Written by algorithms (`Assignment.labels`), read by launch (checkpoints), by best (full resource) and by every face.
"""

from __future__ import annotations

from collections.abc import Mapping

PARENT = "parent"  # number of the trial whose checkpoint this one goes on from
RESOURCE = "resource"  # how much of it the trial may use, as its parameter says
FULL_RESOURCE = "full-resource"  # how much of it a trial may use at most: results with less are not comparable
BRACKET = "bracket"  # hyperband: of successive halvings
RUNG = "rung"  # from 0; a trial of a higher rung goes on with more of the resource
CONFIG = "config"  # number of the trial of rung 0 that this one goes on with
GENERATION = "generation"  # pbt, evolution
MEMBER = "member"  # pbt: of the population
ACTION = "action"  # pbt: init, continue, exploit-explore
REUSED_FROM = "reused-from"  # number of a finished trial with the same parameters: its outcome is this one's


def shortfall(labels: Mapping[str, str]) -> float:
    """By how much less of its resource a trial has than a full one; 0 for a full one, and where there is none.

    Of two trials the one with the smaller shortfall is the better one, whatever their values: the best of an experiment
    is the best at the largest resource so far, and only one without shortfall can reach the goal.
    """
    try:
        return max(0.0, float(labels[FULL_RESOURCE]) - float(labels[RESOURCE]))
    except (KeyError, ValueError):  # no resource, or somebody else's label of that name
        return 0.0


def parent(labels: Mapping[str, str]) -> int | None:
    """The number of the trial whose checkpoint this one goes on from."""
    text = labels.get(PARENT, "")
    return int(text) if text.isascii() and text.isdigit() else None
