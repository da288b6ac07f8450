def is_short(d):
    return False
