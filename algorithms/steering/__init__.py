"""What a spec may ask of any algorithm, done once around all of them instead of anew in each.

`registry.create` puts a `Steered` around an algorithm whose experiment has some of this, and only then; what the
algorithm `handles` itself is left to it. In `features` is who does what, in `session` how a trial comes about, in
`rules` what a trial may be, in `shape` what the algorithm sees of it.

    initialTrials          handed out first; what they leave open is the algorithm's own suggestion
    parameterConstraints   suggestions that violate one are refused and asked again, at most 50 times; then points are
                           drawn by chance, seeded by (seed, trial number), until one fits
    onDuplicate            resample: as above; reuse: a label names the finished trial with the same parameters
    when                   the algorithm searches the flat space, the trial gets what is active
    nasConfig              the algorithm searches the flat space of the network's choices, the trial gets the network
    warmStart              trials of other experiments come first: the algorithm counts them before its own, unless it
                           says that it `knows_others` by their numbers, below 0
    onFailure: worst       see `base.Failures`

A session that is kept and one that is rebuilt give the same, as the algorithm's own do: where a trial is not what the
algorithm suggested, it is told so by building it anew. What is hidden from a trial stays in its `meta`.
"""
