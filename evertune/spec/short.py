from dataclasses import dataclass


def is_short(d):
    return False
