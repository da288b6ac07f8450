"""The door for kubectl: Experiment objects of a cluster become experiments, and their status shows how those stand.

`python -m evertune.kubectl` runs it, `evertune operator` starts that. The state is Temporal's and the database's: this
package starts, edits and cancels through `evertune.client`, and forgets everything when it is killed. kopf (the extra
`operator`) is imported in `handlers` and `cluster` only.
"""
