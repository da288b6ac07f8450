from pathlib import Path
WRAPPER = Path(__file__).with_name("wrapper.sh")
def wrapped(who, grace_s, cap_mib, directory="/evertune"):
    return [f"{directory}/busybox", "sh", f"{directory}/wrapper.sh", who, str(grace_s), str(cap_mib)]
