"""Labels of trials that mean something beyond the algorithm that gives them. All values are text.

Written by algorithms (`Assignment.labels`), read by launch (checkpoints), by best (full resource) and by every face.
"""

PARENT = "parent"  # number of the trial whose checkpoint this one goes on from
RESOURCE = "resource"  # how much of it the trial may use, as its parameter says
BRACKET = "bracket"  # hyperband: of successive halvings
RUNG = "rung"  # from 0; a trial of a higher rung goes on with more of the resource
CONFIG = "config"  # number of the trial of rung 0 that this one goes on with
GENERATION = "generation"  # pbt, evolution
MEMBER = "member"  # pbt: of the population
ACTION = "action"  # pbt: init, continue, exploit+explore
REUSED_FROM = "reused-from"  # number of a finished trial with the same parameters: its outcome is this one's
